-- +goose Up
create table outbox (
    id          identity_key, -- row order is commit order within a key
    topic       text not null,
    key         bytea,        -- null: a dead letter without a key
    value       bytea,        -- null: a dead letter without a value
    headers     bytea not null,
    created_at  bigint not null default (now_micros()) -- the clock that its age is judged by
);

create table outbox_lease (
    id          bigint primary key,
    owner       text not null,
    until       bigint not null,
    held        text not null    -- JSON: what the relay on duty holds back
);

insert into outbox_lease (id, owner, until, held) values (1, '', 0, '[]');

-- +goose Down
drop table outbox_lease;
drop table outbox;
