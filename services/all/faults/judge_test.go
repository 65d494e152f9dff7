//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// versions are, by source, the query that says how many events each aggregate has caused.
var versions = map[string]struct{ service, query string }{
	"/order":     {"order", "select order_id, version from orders"},
	"/inventory": {"inventory", "select order_id, version from reservation"},
	"/email":     {"email", "select order_id, version from recipient"},
}

// kafka speaks to the broker.
func (r *rig) kafka(opts ...kgo.Opt) *kgo.Client {
	r.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(r.brokers, ",")...), kgo.DisableClientMetrics())...)
	if err != nil {
		r.Fatal(err)
	}
	return cl
}

// query reads two columns of a service's database.
func (r *rig) query(service, query string, each func(a string, b int64)) error {
	d, err := db.Open(db.Config{URL: r.directURL(service)})
	if err != nil {
		return err
	}
	defer d.Close()
	rows, err := d.Query(r.ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var a string
		var b int64
		if err := rows.Scan(&a, &b); err != nil {
			return err
		}
		each(a, b)
	}
	return rows.Err()
}

// count counts what a service's database has.
func (r *rig) count(service, from string) (n int64) {
	r.Helper()
	if err := r.query(service, "select '', count(*) from "+from, func(_ string, c int64) { n = c }); err != nil {
		r.Fatalf("%s: %v", service, err)
	}
	return n
}

// judge waits until the shop is quiet, collects all it has left, and lets check judge that.
// It returns the facts and how long the shop took to become quiet.
func (r *rig) judge(expect check.Expect) (facts *check.Facts, healed time.Duration) {
	r.Helper()
	begun := time.Now()
	facts = &check.Facts{}
	quiet := within(patience, func() bool { return r.quiet(facts) })
	healed = time.Since(begun)
	r.collect(facts)
	expect.MemoryCap = memoryCap
	if expect.Received == nil {
		expect.Received = r.received
	}
	wrong := facts.Judge(expect)
	if !quiet && len(wrong) == 0 {
		wrong = append(wrong, fmt.Sprintf("I6: not quiet within %v", patience))
	}
	for _, p := range r.processes {
		text, _ := os.ReadFile(p.log)
		for _, line := range wrecks.FindAllString(string(text), 3) {
			wrong = append(wrong, p.name+": "+line)
		}
		if !p.alive() {
			wrong = append(wrong, fmt.Sprintf("%s has ended: %q", p.name, p.exits))
		}
	}
	wrong = append(wrong, r.strange...)
	for i, w := range wrong {
		if i == 30 {
			r.Errorf("and %d more", len(wrong)-i)
			break
		}
		r.Error(w)
	}
	r.summarize(facts, healed, len(wrong))
	return facts, healed
}

// quiet reports whether nothing is under way. What it finds stands in facts.
func (r *rig) quiet(facts *check.Facts) bool {
	before, err := r.ends()
	if err != nil || !r.pending(facts, before) {
		return false
	}
	// If the topics end where they did, nothing was new in between.
	after, err := r.ends()
	return err == nil && maps.Equal(before, after)
}

// ends are where the topics of events end, by topic and partition.
func (r *rig) ends() (map[string]int64, error) {
	cl := r.kafka()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, schemas.TopicOrders, schemas.TopicInventory, schemas.TopicEmails)
	if err == nil {
		err = listed.Error()
	}
	ends := map[string]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = o.Offset })
	return ends, err
}

// pending looks at everything that may be under way: the order matters, since what is taken
// either waits or is done, and what is done has left its events in the outbox.
func (r *rig) pending(facts *check.Facts, ends map[string]int64) (none bool) {
	cl := r.kafka()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	facts.Lag, facts.Outbox, facts.Waiting = map[string]int64{}, map[string]int64{}, []check.Waiting{}
	none = true
	for _, s := range services {
		// Not by kadm's lag: a group that is being joined has none there.
		committed, err := kadm.NewClient(cl).FetchOffsets(ctx, s)
		if err != nil {
			return false
		}
		for p := int32(0); ; p++ {
			end, ok := ends[fmt.Sprintf("%s/%d", consumed[s], p)]
			if !ok {
				break
			}
			o, _ := committed.Lookup(consumed[s], p)
			facts.Lag[s] += end - max(0, o.At)
		}
		waiting, err := r.waiting(s)
		if err != nil {
			return false
		}
		facts.Waiting = append(facts.Waiting, waiting...)
		if r.query(s, "select '', count(*) from outbox", func(_ string, n int64) { facts.Outbox[s] = n }) != nil {
			return false
		}
		none = none && facts.Lag[s] == 0 && facts.Outbox[s] == 0 && !slices.ContainsFunc(waiting, func(w check.Waiting) bool {
			return w.State == "retrying" || w.State == "running" || w.State == "unavailable"
		})
	}
	return none
}

// waiting is what a service's operator sees.
func (r *rig) waiting(service string) (all []check.Waiting, err error) {
	for after := ""; ; {
		var page struct {
			Items []struct{ Topic, Key, Type, State, Reason, Error string }
			Next  string
		}
		status, text, err := r.get("http://" + r.replicas(service)[0].help + "/admin/waiting?limit=1000&after=" + after)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("answered %d %s", status, text)
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &page)
		}
		if err != nil {
			return nil, err
		}
		for _, i := range page.Items {
			all = append(all, check.Waiting{Group: service, Topic: i.Topic, Key: i.Key, Type: i.Type, State: i.State, Reason: i.Reason, Error: i.Error})
		}
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// collect reads everything else that the judge needs.
func (r *rig) collect(facts *check.Facts) {
	r.Helper()
	facts.Requests = r.requests
	facts.Records = r.dump(schemas.TopicOrders, schemas.TopicInventory, schemas.TopicEmails)
	facts.Mails = r.mail.mails()
	facts.Rows, facts.Movements, facts.Memory = map[string]check.Versions{}, map[string][]check.Movement{}, map[string]int64{}
	for source, v := range versions {
		rows := check.Versions{}
		if err := r.query(v.service, v.query, func(id string, n int64) { rows[id] = n }); err != nil {
			r.Fatal(err)
		}
		facts.Rows[source] = rows
	}
	ids := map[string]bool{}
	for id := range facts.Rows["/order"] {
		ids[id] = true
	}
	for _, q := range r.requests {
		ids[q.OrderID] = true
	}
	r.readOrders(facts, slices.Sorted(maps.Keys(ids)))
	for i := range articles {
		r.readArticle(facts, sku(i))
	}
	for _, p := range r.processes {
		p.mu.Lock()
		p.remember()
		facts.Memory[p.name] = p.memory
		p.mu.Unlock()
	}
}

// readOrders asks the services about each order, as customers would.
func (r *rig) readOrders(facts *check.Facts, ids []string) {
	r.Helper()
	order, mail := r.replicas("order")[0].public, r.replicas("email")[0].public
	shown, sent := make([]*check.Order, len(ids)), make([][]check.Sent, len(ids))
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := worker; i < len(ids); i += 4 {
				shown[i], sent[i] = r.readOrder(order, ids[i]), r.readLedger(mail, ids[i])
			}
		})
	}
	all.Wait()
	facts.Orders, facts.Ledger = []check.Order{}, []check.Sent{}
	for i := range ids {
		if shown[i] != nil {
			facts.Orders = append(facts.Orders, *shown[i])
		}
		facts.Ledger = append(facts.Ledger, sent[i]...)
	}
}

func (r *rig) readOrder(at, id string) *check.Order {
	var o struct {
		Status string
		Lines  []struct {
			SKU      string
			Quantity int64
		}
		History []struct{ Step string }
	}
	if status, _, err := r.get("http://" + at + "/v1/orders/" + id); err == nil && status == http.StatusNotFound {
		return nil
	}
	r.getJSON("http://"+at+"/v1/orders/"+id, &o)
	shown := &check.Order{ID: id, Status: o.Status}
	for _, l := range o.Lines {
		shown.Lines = append(shown.Lines, check.Line{SKU: l.SKU, Quantity: l.Quantity})
	}
	for _, h := range o.History {
		shown.Steps = append(shown.Steps, h.Step)
	}
	return shown
}

func (r *rig) readLedger(at, id string) (sent []check.Sent) {
	var list struct {
		Items []struct {
			EventID   string     `json:"event_id"`
			OrderID   string     `json:"order_id"`
			MessageID string     `json:"message_id"`
			SentAt    *time.Time `json:"sent_at"`
		}
	}
	r.getJSON("http://"+at+"/v1/emails?order_id="+id, &list)
	for _, i := range list.Items {
		sent = append(sent, check.Sent{OrderID: i.OrderID, EventID: i.EventID, MessageID: i.MessageID, Done: i.SentAt != nil})
	}
	return sent
}

// readArticle asks inventory for an article's stock and all of its ledger.
func (r *rig) readArticle(facts *check.Facts, sku string) {
	r.Helper()
	at := "http://" + r.replicas("inventory")[0].public + "/v1/stock/" + sku
	var stock struct {
		OnHand    int64 `json:"on_hand"`
		Reserved  int64 `json:"reserved"`
		Available int64 `json:"available"`
	}
	r.getJSON(at, &stock)
	facts.Stock = append(facts.Stock, check.Stock{SKU: sku, OnHand: stock.OnHand, Reserved: stock.Reserved, Available: stock.Available})
	for after := int64(0); ; {
		var page struct {
			Items []struct {
				Version  int64  `json:"version"`
				Kind     string `json:"kind"`
				Quantity int64  `json:"quantity"`
				OrderID  string `json:"order_id"`
				Cause    string `json:"cause"`
			}
		}
		r.getJSON(fmt.Sprintf("%s/movements?limit=1000&after=%d", at, after), &page)
		for _, m := range page.Items {
			facts.Movements[sku] = append(facts.Movements[sku], check.Movement(m))
			after = m.Version
		}
		if len(page.Items) < 1000 {
			return
		}
	}
}

// headerOf is a header of a record.
func headerOf(rec *kgo.Record, name string) string {
	for _, h := range rec.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// dump reads topics from their beginning, as any tool would: by the registry, without knowing
// their types.
func (r *rig) dump(topics ...string) (records []check.Record) {
	r.Helper()
	reader, err := codec.New(codec.Config{URL: r.registryURL})
	if err != nil {
		r.Fatal(err)
	}
	for _, rec := range r.raw(topics...) {
		one := check.Record{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Key: string(rec.Key)}
		for _, h := range rec.Headers {
			switch value := string(h.Value); h.Key {
			case event.HeaderID:
				one.ID = value
			case event.HeaderSource:
				one.Source = value
			case event.HeaderCausationID:
				one.Cause = value
			case event.HeaderAggregateVersion:
				one.Version = atoi(value)
			case event.HeaderTraceparent:
				if sc := event.SpanContext([]event.Header{{Key: h.Key, Value: h.Value}}); sc.IsValid() {
					one.TraceID = sc.TraceID().String()
				}
			}
		}
		if one.Source != "" {
			if one.Type, err = reader.Type(r.ctx, rec.Value); err != nil {
				r.Fatal(err)
			}
			text, err := reader.JSON(r.ctx, rec.Value, false)
			if err != nil {
				r.Fatal(err)
			}
			if err := json.Unmarshal(text, &one.Data); err != nil {
				r.Fatal(err)
			}
		}
		records = append(records, one)
	}
	return records
}

// raw reads topics from their beginning to their end, each partition in its order.
func (r *rig) raw(topics ...string) (records []*kgo.Record) {
	r.Helper()
	admin := r.kafka()
	defer admin.Close()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	client := kadm.NewClient(admin)
	starts, err := client.ListStartOffsets(ctx, topics...)
	if err != nil {
		r.Fatal(err)
	}
	ends, err := client.ListEndOffsets(ctx, topics...)
	if err != nil {
		r.Fatal(err)
	}
	from, left := map[string]map[int32]kgo.Offset{}, map[string]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		begin, _ := starts.Lookup(end.Topic, end.Partition)
		if begin.Offset >= end.Offset {
			return
		}
		if from[end.Topic] == nil {
			from[end.Topic] = map[int32]kgo.Offset{}
		}
		from[end.Topic][end.Partition] = kgo.NewOffset().At(begin.Offset)
		left[fmt.Sprintf("%s/%d", end.Topic, end.Partition)] = end.Offset
	})
	if len(left) == 0 {
		return nil
	}
	cl := r.kafka(kgo.ConsumePartitions(from))
	defer cl.Close()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.Fatalf("dump %v: %v", topics, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			at := fmt.Sprintf("%s/%d", rec.Topic, rec.Partition)
			if rec.Offset < left[at] {
				records = append(records, rec)
			}
			if rec.Offset+1 >= left[at] {
				delete(left, at)
			}
		})
	}
	return records
}
