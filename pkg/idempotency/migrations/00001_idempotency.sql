-- +goose Up
create table idempotency (
    key         text primary key, -- the request's scope and its Idempotency-Key
    fingerprint bytea not null,   -- of the request
    status      bigint not null,
    location    text not null,
    body        bytea not null,
    expires_at  bigint not null
);
create index idempotency_expires on idempotency (expires_at);

-- +goose Down
drop table idempotency;
