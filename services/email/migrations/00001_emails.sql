-- +goose Up

-- Where to write to about an order; personal data.
create table recipient (
    order_id    text primary key,
    address     text not null,
    version     bigint not null -- how many events the service has published for the order
);

-- The ledger: a row before a mail is sent, and its end after.
create table mail (
    mail_id     text primary key, -- the name in the Message-ID
    event_id    text not null,    -- the event that settled the order
    order_id    text not null,
    kind        text not null,
    message_id  text not null,
    begun_at    bigint not null,
    sent_at     bigint not null -- 0: it was about to be sent
);
create index mail_order on mail (order_id);

-- +goose Down
drop table mail;
drop table recipient;
