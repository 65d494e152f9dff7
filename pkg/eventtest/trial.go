package eventtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/event"
)

// Trial runs a service through the same events under several schedules, each with a broker
// and a database of its own, and compares what becomes of it.
type Trial struct {
	Contract *Contract
	Service  Service
	// Source is the service that the events come from, such as "/order".
	Source string
	// Prepare, if set, brings a rig to where the events begin. A replica is ready then.
	Prepare func(*Rig)
	// Events are published in this order. Each has an ID of its own, the same under every
	// schedule. Their outcome must not hang on the order of different keys, since nothing is
	// promised about it: give orders that compete for the last piece another test.
	Events []event.Payload
	// State is what the service has made of the events, compared as JSON: leave out times and
	// whatever else may rightly differ. It is called when nothing is under way any more.
	State func(*Rig) any
	// Seed is that of the first shuffle, 1 if 0. Further ones count up from it.
	Seed uint64
	// Shuffles is how many orders across keys are tried; 3 if 0.
	Shuffles int
}

// Run runs the trial. It fails t for each schedule that leaves another state than one event
// after the other does, or other events than those, by their IDs. An event that was published
// twice with one ID is the same event.
func (tr Trial) Run(t *testing.T) {
	t.Helper()
	tr.each(t, func(t *testing.T, _ string, diff string) {
		if diff != "" {
			t.Error(diff)
		}
	})
}

// each hands over the difference that each schedule makes, in a subtest.
func (tr Trial) each(t *testing.T, judge func(t *testing.T, schedule, diff string)) {
	t.Helper()
	var want outcome
	if !t.Run("one after the other", func(t *testing.T) { want = tr.outcome(t, schedule{play: oneByOne}, true) }) {
		return
	}
	for _, s := range tr.schedules() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			got := tr.outcome(t, s, false)
			judge(t, s.name, want.diff(got, s))
		})
	}
}

// outcome is what a run leaves.
type outcome struct {
	state   string // as JSON
	emitted map[string]string
}

// diff is how got, under a schedule, differs.
func (o outcome) diff(got outcome, s schedule) (text string) {
	if d := gocmp.Diff(strings.Split(o.state, "\n"), strings.Split(got.state, "\n")); d != "" {
		text += fmt.Sprintf("%s: the state differs (-one after the other +%s):\n%s", s, s.name, d)
	}
	if d := gocmp.Diff(o.emitted, got.emitted); d != "" {
		text += fmt.Sprintf("%s: the events that were emitted differ (-one after the other +%s):\n%s", s, s.name, d)
	}
	return text
}

func (tr Trial) outcome(t *testing.T, s schedule, must bool) outcome {
	t.Helper()
	p := &play{Rig: New(t, tr.Contract, tr.Service), seed: s.seed}
	first := p.launch(s.vars)
	first.ready()
	if tr.Prepare != nil {
		tr.Prepare(p.Rig)
	}
	p.Settle()
	before := p.emitted()
	for _, e := range tr.Events {
		p.records = append(p.records, p.Event(tr.Source, e))
	}
	prepared := p.look(tr.State, before)
	s.play(p, first)
	p.Settle()
	o := p.look(tr.State, before)
	if must && gocmp.Equal(o, prepared, gocmp.AllowUnexported(outcome{})) {
		t.Fatalf("the %d events change nothing that State shows, and cause none: the trial could not fail", len(tr.Events))
	}
	return o
}

// look looks at the service; the events of before do not count.
func (r *Rig) look(state func(*Rig) any, before map[string]string) outcome {
	r.Helper()
	text, err := json.MarshalIndent(state(r), "", "  ")
	if err != nil {
		r.Fatalf("the state is no JSON: %v", err)
	}
	o := outcome{string(text), r.emitted()}
	for l := range before {
		delete(o.emitted, l)
	}
	return o
}

// play is one run of a trial.
type play struct {
	*Rig
	records []event.Record // as written
	seed    uint64
}

// schedule is a way in which events may reach a service, and what happens meanwhile.
type schedule struct {
	name string
	seed uint64 // 0: it needs none
	vars map[string]string
	play func(*play, *Replica)
}

// String names the schedule, with its seed.
func (s schedule) String() string {
	if s.seed == 0 {
		return s.name
	}
	return fmt.Sprintf("%s, seed %d", s.name, s.seed)
}

func (tr Trial) schedules() []schedule {
	all := []schedule{
		{name: "all at once", play: func(p *play, _ *Replica) { p.Publish(p.records...) }},
		{name: "each twice in a row", play: twiceInARow},
		{name: "everything again later", play: againLater},
		// A static member: the group need not wait for the session of a dead one.
		{name: "killed and started again", play: killed, vars: static},
		{name: "rebalanced", play: rebalanced},
	}
	for i := range cmp.Or(tr.Shuffles, 3) {
		all = append(all, schedule{name: "out of order across keys", seed: cmp.Or(tr.Seed, 1) + uint64(i), play: shuffled})
	}
	return all
}

var static = map[string]string{"KAFKA_INSTANCE_ID": "eventtest"}

func oneByOne(p *play, _ *Replica) {
	for _, rec := range p.records {
		p.Publish(rec)
		p.Settle()
	}
}

func twiceInARow(p *play, _ *Replica) {
	for _, rec := range p.records {
		p.Publish(rec, rec)
	}
}

func againLater(p *play, _ *Replica) {
	p.Publish(p.records...)
	p.Settle()
	p.Publish(p.records...)
}

// shuffled merges the keys' events at random, and lets some arrive alone.
func shuffled(p *play, _ *Replica) {
	random := rand.New(rand.NewPCG(p.seed, 0))
	queues := map[string][]event.Record{}
	var order []string // one entry for each record: its queue
	for _, rec := range p.records {
		q := rec.Topic + " " + string(rec.Key)
		queues[q], order = append(queues[q], rec), append(order, q)
	}
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, q := range order {
		p.Publish(queues[q][0])
		queues[q] = queues[q][1:]
		if random.IntN(2) == 0 {
			p.Settle()
		}
	}
}

// killed kills the service at each point once, with a part of the events in its hands.
func killed(p *play, now *Replica) {
	points := []point{beforeCommit, beforeOffset, afterPublish}
	for i, at := range points {
		now.killAt(at)
		p.Publish(p.part(i, len(points))...)
		Until(p, "the service is killed "+string(at), func() bool { return now.killed() || p.unsettled() == "" })
		if !now.killed() {
			p.Logf("killed when all was done: it never was at the point %q", at)
			now.Kill()
		}
		now = p.launch(static)
		now.ready()
	}
}

// rebalanced lets a second replica join, and the first one leave, while events arrive.
func rebalanced(p *play, first *Replica) {
	p.Publish(p.part(0, 3)...)
	second := p.launch(nil)
	p.Publish(p.part(1, 3)...)
	second.ready()
	Until(p, "both replicas have partitions", p.shared)
	first.stop()
	p.Publish(p.part(2, 3)...)
	first.Stop()
}

// shared reports whether the group's members share its partitions, if there are several.
func (r *Rig) shared() bool {
	group := r.Kafka.Cluster().GroupInfo(r.service.Name)
	all, idle := 0, 0
	for _, m := range group.Members {
		all += m.NumAssigned()
		if m.NumAssigned() == 0 {
			idle++
		}
	}
	return group.State == "Stable" && len(group.Members) > 1 && (idle == 0 || all == 1)
}

// part is the i-th of n parts of the events, about equally long.
func (p *play) part(i, n int) []event.Record {
	return p.records[i*len(p.records)/n : (i+1)*len(p.records)/n]
}
