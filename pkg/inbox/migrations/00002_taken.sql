-- +goose Up

-- All records below this position have been taken, those that nobody here handles included. It
-- may lag behind by a minute.
alter table inbox_mark add column taken bigint not null default 0;

-- +goose Down
alter table inbox_mark drop column taken;
