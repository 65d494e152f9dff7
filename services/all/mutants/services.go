package main

// table is every mutation.
func table() (all []mutation) {
	for _, part := range [][]mutation{inboxMutations(), outboxMutations(), kafkaMutations(), serviceMutations(), codecMutations()} {
		all = append(all, part...)
	}
	return all
}

// serviceMutations take out what the services add to the promises, and what keeps requests
// from happening twice.
func serviceMutations() []mutation {
	const key = "pkg/idempotency/idempotency.go"
	keys, order, inventory, email := []string{"pkg/idempotency"}, []string{"services/order"}, []string{"services/inventory"}, []string{"services/email"}
	return []mutation{
		{name: "idempotency-unique", promise: 1, tests: keys,
			breaks: "a repeated request takes over its own key",
			edits:  []edit{{key, "where idempotency.expires_at <= now_micros()`", "where idempotency.expires_at > 0`"}}},
		{name: "idempotency-answer", promise: 1, tests: keys,
			breaks: "a repeated request does not get the stored answer",
			edits:  []edit{{key, "status = $2, location = $3, body = $4 where key = $1`", "status = $2, location = $3 where key = $1 and $4 = $4`"}}},
		{name: "idempotency-mismatch", promise: 1, tests: keys,
			breaks: "another request gets the stored answer",
			edits:  []edit{{key, `case !bytes.Equal(first, fingerprint):`, `case !bytes.Equal(first, first):`}}},
		{name: "idempotency-one-transaction", promise: 1, tests: keys, postgres: true,
			breaks: "the answer is stored in another transaction than the effect",
			edits:  []edit{{key, "if a, err = fn(ctx, tx); err != nil {", "if err = k.db.InTx(ctx, func(ctx context.Context, own *db.Tx) error { a, err = fn(ctx, own); return err }); err != nil {"}}},
		{name: "silent-connection", promise: 12, tests: []string{"pkg/db"}, postgres: true,
			breaks: "a connection that nobody answers any more is used",
			edits:  []edit{{"pkg/db/rested.go", `case now-last > r.after:`, `case now-last < 0:`}}},
		{name: "silent-connections", promise: 12, tests: []string{"pkg/db"}, postgres: true,
			breaks: "each connection that nobody answers any more costs a wait",
			edits:  []edit{{"pkg/db/rested.go", `case int64(last) < r.silent.Load():`, `case int64(last) < 0*r.silent.Load():`}}},
		{name: "request-ends", promise: 12, tests: []string{"pkg/service"},
			breaks: "a request that nothing answers ends without a word",
			edits:  []edit{{"pkg/service/server.go", `answerTimeout     = 35 * time.Second`, `answerTimeout     = 41 * time.Second`}}},
		{name: "order-lock", promise: 3, tests: order, postgres: true,
			breaks: "an order's version is raised without its row's lock",
			edits:  []edit{{"services/order/store.go", "from orders where order_id = $1`+tx.ForUpdate(), id), o))", "from orders where order_id = $1`, id), o))"}}},
		{name: "order-version", promise: 3, tests: order,
			breaks: "an order's events do not count up",
			edits:  []edit{{"services/order/service.go", "\t\to.Version++\n", "\t\to.Version += 0\n"}}},
		{name: "order-deadline-lock", promise: 3, tests: order, postgres: true,
			breaks: "the deadline's order is not locked",
			edits:  []edit{{"services/order/store.go", "order by pending_since limit 1`+d.SkipLocked(), patience", "order by pending_since limit 1`, patience"}}},
		{name: "order-late-answer", promise: 4, tests: order,
			breaks: "a cancelled order is confirmed by a late answer",
			edits:  []edit{{"services/order/order.go", "o.step(\"stock reserved\", at)\n\tif o.Status != Pending {", "o.step(\"stock reserved\", at)\n\tif o.Status == Rejected {"}}},
		{name: "order-cancelled-twice", promise: 4, tests: order,
			breaks: "a cancelled order is cancelled again, by the customer and by the deadline",
			edits:  []edit{{"services/order/order.go", "\tcase Cancelled:\n\t\treturn nil, nil\n", ""}}},
		{name: "order-event-in-tx", promise: 1, tests: order,
			breaks: "an order is committed without its event",
			edits:  []edit{{"services/order/service.go", "if err := s.outbox.Append(ctx, tx, o.Version, event.Because(o.ID, idempotencyKey), placed); err != nil {", "if placed == nil {"}}},
		{name: "order-overload", promise: 12, tests: order,
			breaks: "orders are taken whatever waits",
			edits:  []edit{{"services/order/service.go", "\ts.pressure.Store(reason)\n", "\ts.pressure.Store(reason)\n\ts.pressure.Store(nil)\n"}}},
		{name: "stock-check", promise: 4, tests: inventory,
			breaks: "more is reserved than there is",
			edits:  []edit{{"services/inventory/inventory.go", `if available < int64(l.Quantity) {`, `if available < 0 {`}}},
		{name: "stock-all-or-none", promise: 4, tests: inventory,
			breaks: "an order that lacks a line reserves the others",
			edits: []edit{{"services/inventory/inventory.go", "\t\tr.Lines = append(r.Lines, Line{l.SKU, int64(l.Quantity)})\n", "\t\tif s[l.SKU] == nil || s[l.SKU].Available() < int64(l.Quantity) {\n\t\t\tcontinue\n\t\t}\n\t\tr.Lines = append(r.Lines, Line{l.SKU, int64(l.Quantity)})\n"},
				{"services/inventory/inventory.go", "\tif missing != nil {\n", "\tif len(missing) == len(o.Lines) {\n"}}},
		{name: "stock-known-order", promise: 4, tests: inventory,
			breaks: "an order that is known is reserved again",
			edits: []edit{{"services/inventory/service.go", "if known[e.Data.OrderID] != nil {", "if known[e.Data.OrderID] != nil && e.Data.OrderID == \"\" {"},
				{"services/inventory/store.go", `writeReservations(ctx, tx, made, "")`, "writeReservations(ctx, tx, made, `on conflict (order_id) do nothing`)"}}},
		{name: "stock-lock", promise: 4, tests: inventory, postgres: true,
			breaks: "stock is read without its lock",
			edits:  []edit{{"services/inventory/ledger.go", "` order by sku`+tx.ForUpdate(), arg)", "` order by sku`, arg)"}}},
		{name: "reservation-lock", promise: 3, tests: inventory, postgres: true,
			breaks: "a reservation is read without its lock",
			edits:  []edit{{"services/inventory/store.go", "` order by order_id`+tx.ForUpdate(), arg)", "` order by order_id`, arg)"}}},
		{name: "reservation-written-over", promise: 4, tests: inventory, postgres: true,
			breaks: "a new reservation is written over one that was made meanwhile",
			edits:  []edit{{"services/inventory/store.go", `writeReservations(ctx, tx, made, "")`, "writeReservations(ctx, tx, made, `on conflict (order_id) do update set state = excluded.state, lines = excluded.lines, version = excluded.version`)"}}},
		{name: "mail-sent-before", promise: 5, tests: email,
			breaks: "a mail that the ledger knows as sent is sent again",
			edits:  []edit{{"services/email/store.go", `sent = at > 0`, `sent = at < 0`}}},
		{name: "mail-begun-before", promise: 5, tests: email,
			breaks: "the ledger has no row before a mail is sent",
			edits:  []edit{{"services/email/service.go", "sent, err := begin(ctx, s.db, m)\n", "sent, err := false, error(nil)\n\tdefer func() { _, _ = begin(ctx, s.db, m) }()\n"}}},
		{name: "mail-message-id", promise: 5, tests: email,
			breaks: "a mail that is repeated cannot be recognised",
			edits:  []edit{{"services/email/service.go", "MessageID: s.mailer.messageID(id)}", "MessageID: s.mailer.messageID(uuid.NewString())}"}}},
		{name: "mail-version", promise: 3, tests: email,
			breaks: "the version of the email service's events is read without its row's lock",
			edits:  []edit{{"services/email/store.go", "`update recipient set version = version + 1 where order_id = $1 returning version`", "`select version + 1 from recipient where order_id = $1`"}}},
	}
}

// codecMutations take out what bounds hostile bytes, hides personal data, and keeps schemas
// compatible.
func codecMutations() []mutation {
	only, judge := []string{"pkg/codec"}, []string{"pkg/codec/compat", "schemas/..."}
	const compat, rules = "pkg/codec/compat/compat.go", "pkg/codec/compat/rules.go"
	return []mutation{
		{name: "pii-mask", promise: 11, tests: only,
			breaks: "personal data that the schema marks is shown",
			edits:  []edit{{"pkg/codec/json.go", `if p.mask && (f.pii || p.masked[f.name]) {`, `if p.mask && p.masked[f.name] {`}}},
		{name: "pii-mask-of-ours", promise: 11, tests: only,
			breaks: "personal data that only our own schema marks is shown in a foreign event",
			edits:  []edit{{"pkg/codec/json.go", `if p.mask && (f.pii || p.masked[f.name]) {`, `if p.mask && f.pii {`}}},
		{name: "pii-mask-on-routes", promise: 11, tests: []string{"pkg/inbox"},
			breaks: "the operator's routes show personal data unasked",
			edits:  []edit{{"pkg/inbox/admin.go", `in.whole(r.Context(), &one[0], !unmask)`, `in.whole(r.Context(), &one[0], false)`}}},
		{name: "hostile-arrays", promise: 11, tests: only,
			breaks: "a small record decodes to arrays without bound",
			edits:  []edit{{"pkg/codec/walk.go", `if s.budget < 0 {`, `if s.budget < -1<<62 {`}}},
		{name: "hostile-blocks", promise: 11, tests: only,
			breaks: "an array of one block each is copied again and again",
			edits:  []edit{{"pkg/codec/walk.go", `s.budget -= items * s.element`, `s.budget -= count * s.element`}}},
		{name: "hostile-depth", promise: 11, tests: only,
			breaks: "values lie in each other without bound",
			edits:  []edit{{"pkg/codec/walk.go", `if w.depth++; w.depth > maxDepth {`, `if w.depth++; w.depth < 0 {`}}},
		{name: "compat-rules", promise: 9, tests: judge,
			breaks: "our own rules of compatibility do not refuse",
			edits:  []edit{{compat, `if p := d.check("", older.hamba, newer.hamba); p != nil {`, `if p := d.check("", older.hamba, newer.hamba); p != nil && p.rule == "" {`}}},
		{name: "compat-lint", promise: 9, tests: judge,
			breaks: "a version alone is not judged",
			edits:  []edit{{compat, `.check("", h); p != nil {`, `.check("", h); p != nil && p.rule == "" {`}}},
		{name: "compat-resolution", promise: 9, tests: judge,
			breaks: "whether a reader resolves what was written is not asked",
			edits:  []edit{{compat, "\tif err != nil {\n\t\treturn fmt.Errorf(\"version %d cannot read", "\tif err != nil && writer.number < 0 {\n\t\treturn fmt.Errorf(\"version %d cannot read"}}},
		{name: "compat-transitive", promise: 9, tests: judge,
			breaks: "a version is compared with its neighbour only",
			edits:  []edit{{compat, `for _, older := range parsed[:i] {`, `for _, older := range parsed[max(0, i-1):i] {`}}},
		{name: "compat-frozen", promise: 9, tests: judge,
			breaks: "a version that was published can be edited",
			edits:  []edit{{"schemas/internal/generate/freeze.go", `ok && was != sum {`, `ok && was == "" {`}}},
		{name: "compat-default", promise: 9, tests: judge,
			breaks: "the default of a field may change",
			edits:  []edit{{rules, `if older.HasDefault() && newer.HasDefault() && !reflect`, `if older.HasDefault() && newer == nil && !reflect`}}},
	}
}
