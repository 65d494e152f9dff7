package all

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/keyline/pkg/service"
)

// endpoint is where a service listens behind the front.
type endpoint struct{ url, admin *url.URL }

// listen gives a service free ports.
func (endpoint) listen(c *service.Config) (e endpoint, err error) {
	if c.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return e, err
	}
	if c.AdminListener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return e, err
	}
	at := func(l net.Listener) *url.URL { return &url.URL{Scheme: "http", Host: l.Addr().String()} }
	return endpoint{at(c.Listener), at(c.AdminListener)}, nil
}

// routes are those of all services, their probes under their names, the registry, and the
// page.
func (s *Shop) routes() http.Handler {
	mux := http.NewServeMux()
	for name, e := range map[string]endpoint{"order": s.order, "inventory": s.inventory, "email": s.email} {
		probes := s.proxy(e.url, "/"+name)
		for _, probe := range []string{"livez", "readyz", "metrics", "version", "openapi.yaml"} {
			mux.Handle("GET /"+name+"/"+probe, probes)
		}
	}
	mux.Handle("/v1/orders", s.proxy(s.order.url, ""))
	mux.Handle("/v1/orders/", s.proxy(s.order.url, ""))
	mux.Handle("/v1/stock/", s.proxy(s.inventory.url, ""))
	mux.Handle("/v1/emails", s.proxy(s.email.url, ""))
	if s.parts.registry != nil {
		mux.Handle("/registry/", http.StripPrefix("/registry", s.parts.registry))
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("GET /urls.json", func(w http.ResponseWriter, _ *http.Request) { service.WriteJSON(w, http.StatusOK, s.URLs) })
	s.pages(mux)
	return mux
}

// adminRoutes are the operator's routes of all services, under their names, which the root
// lists.
func (s *Shop) adminRoutes() http.Handler {
	mux := http.NewServeMux()
	all := map[string]endpoint{"order": s.order, "inventory": s.inventory, "email": s.email}
	for name, e := range all {
		mux.Handle("/"+name+"/admin/", s.proxy(e.admin, "/"+name))
	}
	names := map[string][]string{"services": slices.Sorted(maps.Keys(all))}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { service.WriteJSON(w, http.StatusOK, names) })
	return mux
}

// proxy hands requests to a service, without a prefix of their path.
func (s *Shop) proxy(to *url.URL, prefix string) http.Handler {
	return &httputil.ReverseProxy{
		Transport: s.inner.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, prefix)
			r.Out.URL.RawPath = strings.TrimPrefix(r.In.URL.RawPath, prefix)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
			w.Header().Set("Retry-After", "1")
			service.WriteProblem(w, r, http.StatusServiceUnavailable, "the service is starting or stopping", "")
		},
	}
}

// serveReady is ready when all services are.
func (s *Shop) serveReady(w http.ResponseWriter, r *http.Request) {
	for _, e := range []endpoint{s.order, s.inventory, s.email} {
		if !s.ready(r.Context(), e.url) {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ready")
}

func (s *Shop) ready(ctx context.Context, at *url.URL) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.JoinPath("readyz").String(), nil)
	if err != nil {
		return false
	}
	resp, err := s.inner.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// awaitReady reports whether all services became ready before ctx ended.
func (s *Shop) awaitReady(ctx context.Context) bool {
	for _, e := range []endpoint{s.order, s.inventory, s.email} {
		for !s.ready(ctx, e.url) {
			select {
			case <-ctx.Done():
				return false
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return true
}

// serve serves until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // somebody holds on to a page
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// writeURLs writes the file by which the console finds the shop, unless it names another one
// that still answers: then that is returned.
func (s *Shop) writeURLs(ctx context.Context, file string) (other string, err error) {
	if file == "" {
		return "", nil
	}
	if other = s.runs(ctx, file); other != "" {
		return other, nil
	}
	text, err := json.MarshalIndent(s.URLs, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", fmt.Errorf("write the URLs: %w", err)
	}
	return "", os.WriteFile(file, append(text, '\n'), 0o644)
}

// runs is where the shop is that a file names, empty if that does not run any more. Another
// one may have its port by now, this one among them.
func (s *Shop) runs(ctx context.Context, file string) string {
	named, there := readURLs(file), URLs{}
	if named == (URLs{}) || s.fetch(ctx, named.HTTP+"/urls.json", &there) != nil || there != named {
		return ""
	}
	return named.HTTP
}

// readURLs are those of a file, none if it is not there or damaged.
func readURLs(file string) (named URLs) {
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &named) != nil {
		return URLs{}
	}
	return named
}

// removeURLs takes the file away, for what it names is gone, unless it names another shop by
// now.
func (s *Shop) removeURLs(file string) {
	if readURLs(file) == s.URLs {
		_ = os.Remove(file)
	}
}

// banner says where everything is, and what to try.
func (s *Shop) banner(cfg Config, took time.Duration, other string) {
	t := tabwriter.NewWriter(cfg.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nKeyline is open (after %s)\n\n", took.Round(time.Millisecond))
	fmt.Fprintf(t, "  Shop\t%s/\tlatest orders, mails, traces\n", s.URLs.HTTP)
	fmt.Fprintf(t, "  API\t%s/order/openapi.yaml\tlikewise /inventory and /email\n", s.URLs.HTTP)
	fmt.Fprintf(t, "  Metrics\t%s/order/metrics\tlikewise /inventory and /email\n", s.URLs.HTTP)
	fmt.Fprintf(t, "  Operator\t%s/order/admin/waiting\tlikewise; or in another shell: bin/console --help\n", s.URLs.Admin)
	fmt.Fprintf(t, "  Kafka\t%s\ttopics orders, inventory, emails\n", s.URLs.Kafka)
	fmt.Fprintf(t, "  Registry\t%s\tConfluent's API\n", s.URLs.Registry)
	fmt.Fprintf(t, "  SMTP\t%s\t\n\n", s.URLs.SMTP)
	_ = t.Flush()
	if other != "" {
		fmt.Fprintf(cfg.Out, "bin/console finds the shop at %s, which was here first. For this one:\n\n  %s\n\n", other, s.export())
	}
	fmt.Fprintf(cfg.Out, "Place an order, and see it on the page:\n\n  %s\n\nCtrl-C stops it.\n\n", s.curl())
}

// export is a line that lets the console find this shop.
func (s *Shop) export() string {
	return fmt.Sprintf("export ADMIN_URLS=order=%[1]s/order,inventory=%[1]s/inventory,email=%[1]s/email KAFKA_BROKERS=%[2]s SCHEMA_REGISTRY_URL=%[3]s",
		s.URLs.Admin, s.URLs.Kafka, s.URLs.Registry)
}

// curl is a line that places an order.
func (s *Shop) curl() string {
	return `curl -i ` + s.URLs.HTTP + `/v1/orders -H 'Idempotency-Key: '$(date +%s) -H 'Content-Type: application/json' ` +
		`-d '{"customer_id":"ada","customer_email":"ada@example.com","lines":[{"sku":"tea","quantity":2,"unit_price_cents":450}]}'`
}
