// Package pkg_test holds the rules of the whole repository: who may import whom, and what
// every file must or must not contain.
package pkg_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wall says what of ours the packages in a folder may import beside the folder itself. The
// longest folder that holds a package decides. Tests are free, but for other services.
type wall struct {
	folder string
	may    []string // folders
	not    []string // exceptions from may
	why    string
}

const (
	contract = "the contract must not hang on the code that carries it, or no second program could share it"
	leaf     = "it is a leaf that every service links: what it imports, all of them get"
	owned    = "a service is one capability: it may know the shared packages and the contract, and other services through events only"
	layers   = "the layers go service -> inbox -> outbox -> db, codec -> event; kafka stands beside them and knows bytes only"
)

var walls = []wall{
	{folder: "schemas", why: contract},
	{folder: "schemas/internal", may: []string{"pkg/codec/compat"}, why: contract},
	{folder: "pkg/event", why: leaf},
	{folder: "pkg/emitter", why: leaf},
	{folder: "pkg/telemetry", why: leaf},
	{folder: "pkg/db", why: leaf},
	{folder: "pkg/codec", may: []string{"pkg/event"}, not: []string{"pkg/codec/compat"},
		why: "the compatibility judge is a tool of the build and of the embedded registry; a service verifies schemas, and judges none"},
	{folder: "pkg/kafka", may: []string{"pkg/event"}, why: layers},
	{folder: "pkg/kafka/kafkatest", why: "it does things to a broker, and knows nothing of ours"},
	{folder: "pkg/outbox", may: []string{"pkg/event", "pkg/codec", "pkg/db"}, not: []string{"pkg/codec/compat"}, why: layers},
	{folder: "pkg/inbox", may: []string{"pkg/event", "pkg/codec", "pkg/db", "pkg/outbox"}, not: []string{"pkg/codec/compat"}, why: layers},
	{folder: "pkg/idempotency", may: []string{"pkg/db"}, why: "it keeps answers to HTTP requests in a database, nothing more"},
	{folder: "pkg/service", may: []string{"pkg/telemetry"}, why: "a process skeleton fits every process only if it knows none of what runs in it"},
	{folder: "pkg/service/spectest", why: "it judges files and answers, nothing else"},
	{folder: "pkg/app", may: []string{"pkg"}, not: testOnly, why: "it puts together what a service runs on, and what a service must not link it must not either"},
	{folder: "pkg/embedded", may: []string{"pkg/event", "pkg/kafka", "pkg/codec"}, why: "it stands in for a broker and a registry, below every service"},
	{folder: "pkg/eventtest", may: []string{"pkg"}, not: []string{"pkg/codec/compat"}, why: "it runs a whole service for its tests, and knows no service and no contract"},
	{folder: "services/order", may: []string{"pkg", "schemas"}, not: testOnly, why: owned},
	{folder: "services/inventory", may: []string{"pkg", "schemas"}, not: testOnly, why: owned},
	{folder: "services/email", may: []string{"pkg", "schemas"}, not: testOnly, why: owned},
	{folder: "services/console", may: []string{"pkg", "schemas"}, not: testOnly, why: owned},
	{folder: "services/all", may: []string{"pkg", "schemas", "services"}, not: []string{"pkg/db/dbtest", "pkg/eventtest", "pkg/kafka/kafkatest", "pkg/service/spectest"}, why: "test helpers stay out of programs"},
	{folder: "services/all/sim", why: "its program only starts runs and adds up what they report; the rest is a test"},
	{folder: "deploy", why: "it runs what was built; its tests look at files and scripts only"},
	{folder: "deploy/shop", may: []string{"pkg/event", "pkg/kafka", "schemas"}, why: "it treats the shop as others do: by its APIs, its topics and its console"},
	{folder: "services/all/mutants", why: "it changes the text of the others, so it must not be made of them"},
}

// testOnly is what a service's program must not hold; its tests may.
var testOnly = []string{"pkg/embedded", "pkg/codec/compat", "pkg/db/dbtest", "pkg/eventtest", "pkg/kafka/kafkatest", "pkg/service/spectest"}

// library says which folders may import a library. The longest prefix that matches an
// import decides; libraries that are not listed are free.
type library struct {
	prefix  string
	folders []string
	why     string
}

var libraries = []library{
	{"github.com/twmb/franz-go", []string{"pkg/kafka", "pkg/embedded"}, "only pkg/kafka knows the Kafka client: its traps (commits, fatal errors, rebalances) are handled in one place"},
	{"github.com/twmb/franz-go/pkg/sr", []string{"pkg/codec", "pkg/embedded"}, "only pkg/codec talks to the schema registry"},
	{"github.com/twmb/avro", []string{"pkg/codec"}, "only pkg/codec knows Avro: bytes from a broker are decoded in one place, with its bounds"},
	{"github.com/hamba/avro", []string{"schemas/internal"}, "hamba generates, at build time, and is a second opinion of tests; its decoder is unsafe on hostile bytes, and the linker drops no method behind its reflection"},
	{"github.com/linkedin/goavro", nil, "goavro is the second opinion of the tests, and of nothing else"},
	{"github.com/jackc/pgx", []string{"pkg/db"}, "only pkg/db knows the two databases apart"},
	{"modernc.org/sqlite", []string{"pkg/db"}, "only pkg/db knows the two databases apart"},
	{"github.com/pressly/goose", []string{"pkg/db"}, "only pkg/db migrates"},
	{"database/sql", []string{"pkg/db", "pkg/outbox", "pkg/inbox", "pkg/idempotency", "pkg/eventtest", "services"}, "messages, telemetry and the process skeleton work without a database"},
	{"github.com/caarlos0/env", []string{"pkg/service"}, "variables are read in one place, so that one line can name all that are wrong"},
	{"go.opentelemetry.io/otel/sdk", []string{"pkg/telemetry", "services/all"}, "packages are given a tracer and a meter; who exports them is decided in one place"},
	{"github.com/emersion/go-smtp", []string{"pkg/embedded"}, "only the embedded mailbox is an SMTP server"},
	{"github.com/wneessen/go-mail", []string{"services/email"}, "only the email service sends mail"},
	{"testing", []string{"pkg/db/dbtest", "pkg/eventtest"}, "test helpers stay out of programs"},
}

// unlinked must not be in the program of a service, however it comes there.
var unlinked = []string{
	"github.com/hamba/avro", "github.com/linkedin/goavro", "github.com/twmb/franz-go/pkg/kfake",
	"github.com/twmb/franz-go/pkg/sr/srfake", "github.com/emersion/go-smtp", "testing",
}

// pack is a package of the import graph, its paths inside our module without the module's.
type pack struct {
	imports []string
	tests   []string // what its tests import in addition
	ours    bool
}

func under(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func anyUnder(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return under(path, f) })
}

// violations lists what breaks a wall, each with its reason.
func violations(graph map[string]pack) (broken []string) {
	for _, path := range slices.Sorted(maps.Keys(graph)) {
		p := graph[path]
		if !p.ours || path == "pkg" {
			continue
		}
		w, ok := wallOf(path)
		if !ok {
			broken = append(broken, fmt.Sprintf("%s stands behind no wall: give its folder a row in pkg/walls_test.go", path))
			continue
		}
		for _, imp := range p.imports {
			if why := w.forbids(imp, graph[imp].ours); why != "" {
				broken = append(broken, fmt.Sprintf("%s imports %s: %s", path, imp, why))
			}
			if l, ok := libraryOf(imp); ok && !anyUnder(path, l.folders) {
				broken = append(broken, fmt.Sprintf("%s imports %s: %s", path, imp, l.why))
			}
		}
		for _, imp := range p.tests {
			if under(imp, "services") && !under(path, "services/all") && !under(imp, w.folder) {
				broken = append(broken, fmt.Sprintf("a test of %s imports %s: %s", path, imp, owned))
			}
		}
	}
	return append(broken, linked(graph)...)
}

func wallOf(path string) (best wall, ok bool) {
	for _, w := range walls {
		if under(path, w.folder) && len(w.folder) > len(best.folder) {
			best, ok = w, true
		}
	}
	return best, ok
}

// forbids says why the wall is against an import; empty if it is not.
func (w wall) forbids(imp string, ours bool) string {
	switch {
	case !ours || under(imp, w.folder) && !anyUnder(imp, w.not):
		return ""
	case anyUnder(imp, w.may) && !anyUnder(imp, w.not):
		return ""
	}
	return w.why
}

func libraryOf(imp string) (best library, ok bool) {
	for _, l := range libraries {
		if under(imp, l.prefix) && len(l.prefix) > len(best.prefix) {
			best, ok = l, true
		}
	}
	return best, ok
}

// linked follows the imports of each service, to what its program would hold.
func linked(graph map[string]pack) (broken []string) {
	for _, root := range slices.Sorted(maps.Keys(graph)) {
		if !under(root, "services") || under(root, "services/all") {
			continue
		}
		from := map[string]string{root: ""}
		for queue := []string{root}; len(queue) > 0; queue = queue[1:] {
			for _, imp := range graph[queue[0]].imports {
				if _, seen := from[imp]; seen {
					continue
				}
				from[imp] = queue[0]
				queue = append(queue, imp)
				if anyUnder(imp, unlinked) && !anyUnder(queue[0], unlinked) {
					broken = append(broken, fmt.Sprintf("%s links %s (by %s): it belongs to tests and tools, not into a service", root, imp, queue[0]))
				}
			}
		}
	}
	return broken
}

func TestWalls(t *testing.T) {
	t.Parallel()
	graph := importGraph(t)
	if len(graph) < 100 || !graph["pkg/event"].ours {
		t.Fatalf("the import graph has only %d packages", len(graph))
	}
	for _, v := range violations(graph) {
		t.Error(v)
	}
}

// importGraph asks the go command for every package of the module and all they import.
func importGraph(t *testing.T) map[string]pack {
	t.Helper()
	_, module := root(t)
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	short := func(paths []string) []string {
		for i, p := range paths {
			paths[i] = strings.TrimPrefix(p, module+"/")
		}
		return paths
	}
	graph := map[string]pack{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return graph
		} else if err != nil {
			t.Fatal(err)
		}
		graph[strings.TrimPrefix(p.ImportPath, module+"/")] = pack{
			imports: short(p.Imports),
			tests:   short(append(p.TestImports, p.XTestImports...)),
			ours:    under(p.ImportPath, module),
		}
	}
}

// The rules have teeth: a made-up graph that breaks each of them is found out.
func TestWalls_madeUp(t *testing.T) {
	t.Parallel()
	ours := func(imports ...string) pack { return pack{imports: imports, ours: true} }
	for _, tt := range []struct {
		name, from, imports string
		want                string // a part of the message; empty: allowed
	}{
		{"pkg never imports schemas", "pkg/inbox", "schemas", layers},
		{"schemas imports nothing of ours", "schemas", "pkg/event", contract},
		{"only pkg/kafka knows kgo", "pkg/outbox", "github.com/twmb/franz-go/pkg/kgo", "only pkg/kafka"},
		{"a service does not know kgo", "services/order", "github.com/twmb/franz-go/pkg/kgo", "only pkg/kafka"},
		{"only pkg/codec knows the registry", "pkg/kafka", "github.com/twmb/franz-go/pkg/sr", "schema registry"},
		{"pkg/codec knows the registry", "pkg/codec", "github.com/twmb/franz-go/pkg/sr", ""},
		{"but not kgo", "pkg/codec", "github.com/twmb/franz-go/pkg/kgo", "only pkg/kafka"},
		{"only pkg/codec knows Avro", "pkg/inbox", "github.com/twmb/avro", "only pkg/codec"},
		{"the codec does not import the judge", "pkg/codec", "pkg/codec/compat", "tool of the build"},
		{"the embedded registry does", "pkg/embedded", "pkg/codec/compat", ""},
		{"services never import each other", "services/order", "services/email", owned},
		{"a service's program is free of embedded parts", "services/email", "pkg/embedded", owned},
		{"a main imports its service", "services/order/cmd/order", "services/order", ""},
		{"services/all imports services", "services/all", "services/order", ""},
		{"kafka knows no SQL", "pkg/kafka", "database/sql", "without a database"},
		{"nor does pkg/event", "pkg/event", "database/sql", "without a database"},
		{"one reader of variables", "services/order", "github.com/caarlos0/env/v11", "one place"},
		{"telemetry is given, not made", "pkg/outbox", "go.opentelemetry.io/otel/sdk/trace", "one place"},
		{"the API of telemetry is free", "pkg/outbox", "go.opentelemetry.io/otel/trace", ""},
		{"pkg/service knows no database", "pkg/service", "pkg/db", "skeleton"},
		{"a new folder needs a wall", "pkg/utils", "strings", "stands behind no wall"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			graph := map[string]pack{tt.from: ours(tt.imports)}
			if under(tt.imports, "pkg") || under(tt.imports, "schemas") || under(tt.imports, "services") {
				graph[tt.imports] = ours()
			}
			got := strings.Join(violations(graph), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("%s imports %s: got %q, want %q", tt.from, tt.imports, got, tt.want)
			}
		})
	}
	t.Run("a test of a service does not import another service", func(t *testing.T) {
		t.Parallel()
		graph := map[string]pack{"services/order": {ours: true, tests: []string{"services/email", "pkg/embedded"}}}
		if got := violations(graph); len(got) != 1 || !strings.Contains(got[0], "a test of services/order imports services/email") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("what a service must not link is found behind others", func(t *testing.T) {
		t.Parallel()
		graph := map[string]pack{
			"services/order": ours("pkg/inbox"), "pkg/inbox": ours("x"),
			"x": {imports: []string{"github.com/hamba/avro/v2"}}, "github.com/hamba/avro/v2": {},
		}
		want := []string{"services/order links github.com/hamba/avro/v2 (by x): it belongs to tests and tools, not into a service"}
		if diff := cmp.Diff(want, violations(graph)); diff != "" {
			t.Errorf("violations (-want +got):\n%s", diff)
		}
	})
}
