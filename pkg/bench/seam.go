package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// What a span costs a record is less than the noise of everything else that Publish and
// Process do, so B2 calls the functions that make spans by themselves. They are not exported,
// and should not be for a benchmark's sake: the linker finds them by name. It does not check
// how they are called; checkSeams does, before anything runs.

//go:linkname startSend example.com/keyline/pkg/kafka.startSend
func startSend(tracer trace.Tracer, r *event.Record) (trace.Span, []event.Header)

//go:linkname endSend example.com/keyline/pkg/kafka.endSend
func endSend(span trace.Span, r *kgo.Record, err error)

//go:linkname openItem example.com/keyline/pkg/inbox.(*Inbox).open
func openItem(in *inbox.Inbox, ctx context.Context, r *event.Record) (item unsafe.Pointer)

//go:linkname startProcess example.com/keyline/pkg/inbox.(*Inbox).span
func startProcess(in *inbox.Inbox, ctx context.Context, item unsafe.Pointer) (_ context.Context, processSpan unsafe.Pointer)

//go:linkname doneProcess example.com/keyline/pkg/inbox.(*processSpan).done
func doneProcess(processSpan unsafe.Pointer, err error)

//go:linkname finishProcess example.com/keyline/pkg/inbox.(*processSpan).finish
func finishProcess(processSpan unsafe.Pointer)

// seams are the signatures that the declarations above were made for.
var seams = []struct{ file, receiver, name, signature string }{
	{"../kafka/trace.go", "", "startSend", "func(tracer trace.Tracer, r *event.Record) (trace.Span, []event.Header)"},
	{"../kafka/trace.go", "", "endSend", "func(span trace.Span, r *kgo.Record, err error)"},
	{"../inbox/item.go", "*Inbox", "open", "func(ctx context.Context, r *event.Record) *item"},
	{"../inbox/trace.go", "*Inbox", "span", "func(ctx context.Context, it *item) (context.Context, *processSpan)"},
	{"../inbox/trace.go", "*processSpan", "done", "func(err error)"},
	{"../inbox/trace.go", "*processSpan", "finish", "func()"},
}

// checkSeams compares them with the source, beside which the program is run.
func checkSeams() error {
	for _, s := range seams {
		file, err := parser.ParseFile(token.NewFileSet(), s.file, nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("run the program in its own folder: %w", err)
		}
		if got := signature(file, s.receiver, s.name); got != s.signature {
			return fmt.Errorf("%s: %s is now %q, and was %q: mend seam.go", s.file, s.name, got, s.signature)
		}
	}
	return nil
}

// signature is empty if the file has no such function.
func signature(file *ast.File, receiver, name string) string {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != name || (f.Recv == nil) != (receiver == "") {
			continue
		}
		if f.Recv == nil || types.ExprString(f.Recv.List[0].Type) == receiver {
			return types.ExprString(f.Type)
		}
	}
	return ""
}
