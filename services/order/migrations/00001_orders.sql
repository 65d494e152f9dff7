-- +goose Up
create table orders (
    order_id        text primary key, -- UUID version 7: newer orders sort higher
    customer_id     text not null,
    customer_email  text not null,
    currency        text not null,
    lines           text not null,    -- JSON
    total_cents     bigint not null,
    status          text not null,
    reason          text not null,
    version         bigint not null,
    placed_at       bigint not null,
    history         text not null,    -- JSON
    traceparent     text not null,
    pending_since   bigint not null   -- by the database's clock, which judges the deadline
);
create index orders_by_customer on orders (customer_id, order_id);
create index orders_pending on orders (pending_since) where status = 'pending';

-- +goose Down
drop table orders;
