package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/trace"
)

// LogFormat is how log lines are written: [Text] or [JSON]; the zero value is Text.
type LogFormat string

// The formats of log lines.
const (
	Text LogFormat = "text"
	JSON LogFormat = "json"
)

// UnmarshalText accepts the names of the formats only.
func (f *LogFormat) UnmarshalText(text []byte) error {
	switch format := LogFormat(text); format {
	case Text, JSON:
		*f = format
		return nil
	}
	return fmt.Errorf("must be text or json")
}

func newLogger(cfg Config) *slog.Logger {
	w := cfg.LogWriter
	if w == nil {
		w = os.Stderr
	}
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if cfg.LogFormat == JSON {
		h = slog.NewJSONHandler(w, opts)
	}
	return slog.New(logHandler{h}).With("service", cfg.Service)
}

// logHandler adds the IDs of the context's span to each record.
type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(
			slog.String("trace_id", sc.TraceID().String()),
			slog.String("span_id", sc.SpanID().String()),
		)
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name)}
}
