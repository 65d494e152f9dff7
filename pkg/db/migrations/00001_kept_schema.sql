-- +goose Up
create table kept_schema (
    id      bigint primary key, -- the registry's ID
    schema  text not null
);

-- +goose Down
drop table kept_schema;
