-- +goose Up

-- The ledger: the truth about the stock.
create table movement (
    sku         text not null,
    version     bigint not null,
    kind        text not null,
    quantity    bigint not null,
    order_id    text not null,
    cause       text not null,
    at          bigint not null,
    primary key (sku, version)
);

-- The fold of each article's movements, up to the newest.
create table stock (
    sku         text primary key,
    version     bigint not null,
    on_hand     bigint not null,
    reserved    bigint not null,
    at          bigint not null -- of the newest movement; no later one has an earlier time
);

-- Folds of the past, about every hundred versions.
create table stock_snapshot (
    sku         text not null,
    version     bigint not null,
    on_hand     bigint not null,
    reserved    bigint not null,
    at          bigint not null,
    primary key (sku, version)
);

create table reservation (
    order_id    text primary key,
    state       text not null,
    lines       text not null, -- JSON
    version     bigint not null
);

-- +goose Down
drop table reservation;
drop table stock_snapshot;
drop table stock;
drop table movement;
