-- +goose Up

-- A row means: this group has taken responsibility for the event.
create table inbox (
    group_name  text not null,
    identity    bytea not null,
    topic_id    bytea not null,
    part        bigint not null,
    position    bigint not null, -- the highest at which it was seen
    primary key (group_name, identity)
);
create index inbox_position on inbox (group_name, topic_id, part, position);

-- Rows of inbox below this position have been removed; a record below it is old.
create table inbox_mark (
    group_name  text not null,
    topic_id    bytea not null,
    part        bigint not null,
    position    bigint not null,
    primary key (group_name, topic_id, part)
);

-- A row means: this key waits, and so do its later events.
create table waiting_key (
    group_name  text not null,
    topic       text not null,
    key         bytea not null,
    state       text not null,   -- retrying, running, unavailable, dead
    due         bigint not null, -- of a running key: when its claim ends
    claim       bigint not null default 0,
    type        text not null,   -- of its first event, when that last failed
    primary key (group_name, topic, key)
);
create index waiting_key_due on waiting_key (group_name, due) where state in ('retrying', 'running');
create index waiting_key_unavailable on waiting_key (group_name, type) where state = 'unavailable';

-- The queues of the keys, in the order of seq; and letters that were set aside.
create table waiting_event (
    seq             identity_key,
    group_name      text not null,
    topic           text not null,
    key             bytea not null,  -- empty where the record has none
    has_key         boolean not null,
    topic_id        bytea not null,
    part            bigint not null,
    position        bigint not null,
    identity        bytea not null,
    recorded_at     bigint not null,
    headers         bytea not null,
    value           bytea,
    type            text not null,   -- empty where it cannot be told
    set_aside       boolean not null,
    attempts        bigint not null,
    redrives        bigint not null,
    reason          text not null,
    error           text not null,
    first_failed_at bigint not null,
    failed_at       bigint not null,
    taken_at        bigint not null
);
create index waiting_event_queue on waiting_event (group_name, topic, key, seq) where not set_aside;

-- +goose Down
drop table waiting_event;
drop table waiting_key;
drop table inbox_mark;
drop table inbox;
