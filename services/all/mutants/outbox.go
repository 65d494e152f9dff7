package main

// outboxMutations take out what brings every committed event to its topic, in order.
func outboxMutations() []mutation {
	only := []string{"pkg/outbox"}
	const publish = "errs := r.pub.Publish(pctx, records)\n"
	return []mutation{
		{name: "outbox-in-commit", promise: 2, tests: []string{"pkg/db", "pkg/outbox"},
			breaks: "events are saved after the commit, in a transaction of their own",
			edits: []edit{{"pkg/db/tx.go", "\tfor _, d := range tx.deferred {\n\t\tif err := d.Flush(ctx, tx); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\tif err := raw.Commit(); err != nil {\n\t\treturn fmt.Errorf(\"commit: %w\", err)\n\t}\n",
				"\tif err := raw.Commit(); err != nil {\n\t\treturn fmt.Errorf(\"commit: %w\", err)\n\t}\n\tfor _, w := range tx.deferred {\n\t\tlater, err := d.write.BeginTx(ctx, nil)\n\t\tif err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := w.Flush(ctx, &Tx{tx: later, dialect: d.dialect}); err != nil {\n\t\t\treturn errors.Join(err, later.Rollback())\n\t\t}\n\t\tif err := later.Commit(); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n"}}},
		{name: "outbox-id-drawn-early", promise: 3, tests: only, postgres: true,
			breaks: "a connection draws its rows' IDs ahead, not under the aggregate's lock",
			edits:  []edit{{"pkg/db/migrate.go", `"bigint generated always as identity primary key"`, `"bigint generated always as identity (cache 50) primary key"`}}},
		{name: "outbox-order-in-tx", promise: 3, tests: only,
			breaks: "the events of one transaction are saved in another order",
			edits: []edit{{"pkg/outbox/outbox.go", "\tfor i, r := range p.rows {\n\t\ttopics[i]",
				"\tfor i, r := range p.rows {\n\t\ti = len(p.rows) - 1 - i\n\t\ttopics[i]"}}},
		{name: "relay-order", promise: 3, tests: only,
			breaks: "rows are read in the order of their age, not of their IDs",
			edits:  []edit{{"pkg/outbox/relay.go", "` order by id limit %d`", "` order by length(headers), id desc limit %d`"}}},
		{name: "relay-one-window", promise: 3, tests: only,
			breaks: "two windows are in flight at a time",
			edits: []edit{{"pkg/outbox/relay.go", publish,
				"halves, mid := make(chan []error), len(records)/2\n\tgo func() { halves <- r.pub.Publish(pctx, records[mid:]) }()\n" +
					"\terrs := append(make([]error, mid), make([]error, len(records)-mid)...)\n" +
					"\tcopy(errs, r.pub.Publish(pctx, records[:mid]))\n\tcopy(errs[mid:], <-halves)\n"}}},
		{name: "relay-stops-at-failure", promise: 3, tests: only,
			breaks: "after a failure the relay goes on behind it, and comes back later",
			edits: []edit{
				{"pkg/outbox/relay.go", "failed  string // the last error reported, and no success since\n", "failed string\n\tbehind int64\n"},
				{"pkg/outbox/relay.go", "window, err := r.read(ctx, where, args, r.limit)\n\tif err != nil || len(window) == 0 {\n\t\treturn false, err\n\t}\n",
					"all, err := r.read(ctx, where, args, 2*r.limit)\n\tvar window []stored\n\tfor _, s := range all {\n\t\tif s.id > r.behind {\n\t\t\twindow = append(window, s)\n\t\t}\n\t}\n\tr.behind = 0\n\tif err != nil || len(window) == 0 {\n\t\treturn len(all) > 0, err\n\t}\n"},
				{"pkg/outbox/relay.go", "\t\tr.limit = max(1, r.limit/2)\n", "\t\tr.limit, r.behind = max(1, r.limit/2), window[len(window)-1].id\n"},
			}},
		{name: "relay-delete-after-ack", promise: 2, tests: only,
			breaks: "rows are deleted before they are acknowledged",
			edits: []edit{{"pkg/outbox/relay.go", publish,
				"var ids []int64\n\tfor i := range window {\n\t\tids = append(ids, window[i].id)\n\t}\n\tif err := r.delete(context.WithoutCancel(ctx), ids); err != nil {\n\t\treturn false, err\n\t}\n\t" + publish}}},
		{name: "relay-lease", promise: 3, tests: only,
			breaks: "every replica's relay believes that it is on duty",
			edits:  []edit{{"pkg/outbox/relay.go", "where id = 1 and (owner = $1 or until < now_micros())`", "where id = 1`"}}},
		{name: "relay-lease-release", promise: 13, tests: only,
			breaks: "after a clean stop the next relay waits for the lease to run out",
			edits:  []edit{{"pkg/outbox/relay.go", "set until = 0 where id = 1", "set until = until where id = 1"}}},
		{name: "relay-held-key", promise: 6, tests: only,
			breaks: "an event that no broker takes holds up all others",
			edits:  []edit{{"pkg/outbox/relay.go", `r.hold(ctx, window[i].alone(), errs[i])`, `_ = i`}}},
		{name: "relay-held-topic", promise: 6, tests: only,
			breaks: "a missing topic is held key by key, with a window for each",
			edits:  []edit{{"pkg/outbox/relay.go", `r.hold(ctx, Held{Topic: window[i].Topic}, errs[i])`, `_ = i`}}},
		{name: "relay-held-order", promise: 3, tests: only,
			breaks: "later events of a held key are published",
			edits:  []edit{{"pkg/outbox/relay.go", "where, args := without(r.db, r.held.all())\n", "where, args := \"where id not in (select min(id) from outbox group by topic, key having key = $1)\", []any{[]byte(\"bad\")}\n"}}},
		{name: "outbox-trace", promise: 10, tests: only,
			breaks: "the outbox row does not keep the request's trace",
			edits:  []edit{{"pkg/outbox/outbox.go", `headers := event.WithSpanContext(meta.Headers(), cause.Trace(ctx))`, `headers := meta.Headers()`}}},
		{name: "outbox-too-large", promise: 11, tests: only,
			breaks: "an event that no broker takes is accepted",
			edits:  []edit{{"pkg/outbox/outbox.go", `if size > MaxEvent {`, `if size > 10*MaxEvent {`}}},
	}
}
