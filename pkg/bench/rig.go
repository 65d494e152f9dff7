package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
)

// rig is what the parts stand on: a registry, a codec that is verified with it, and a broker
// in a process of its own once somebody asks for it.
type rig struct {
	plan     plan
	registry string // its URL
	codec    *codec.Codec
	broker   *broker
	closes   []func() error

	postgres  string // DATABASE_URL; empty if there is none
	databases int    // the number of the last one
	accounts  []account

	shops    int    // the number of the last one
	profiles string // the folder for profiles of the shops; empty for none
}

// account is a process beside this one that works for it.
type account struct {
	name string
	pid  int // 0 if it is not known
}

func newRig(ctx context.Context, p plan) (*rig, error) {
	r := &rig{plan: p}
	r.plan.rig = r
	if err := r.findDatabase(); err != nil {
		return nil, err
	}
	var err error
	if r.registry, err = r.serveRegistry(); err != nil {
		return nil, err
	}
	var subjects []codec.Subject
	for _, s := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(s))
	}
	if err := codec.Provision(ctx, codec.Config{URL: r.registry}, subjects); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if r.codec, err = newCodec(ctx, r.registry); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// newCodec knows the events of the benchmark, and that the registry has their schemas.
func newCodec(ctx context.Context, registry string) (*codec.Codec, error) {
	c, err := codec.New(codec.Config{URL: registry}, schemas.OrderPlaced{}, schemas.OrderConfirmed{}, schemas.OrderCancelled{})
	if err != nil {
		return nil, err
	}
	return c, c.Verify(ctx)
}

func (r *rig) serveRegistry() (url string, err error) {
	registry, err := embedded.NewRegistry("")
	if err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: registry, ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	r.closes = append(r.closes, func() error {
		err := server.Close()
		<-served
		return err
	})
	return "http://" + ln.Addr().String(), nil
}

func (r *rig) close() error {
	var errs []error
	for i := len(r.closes) - 1; i >= 0; i-- {
		errs = append(errs, r.closes[i]())
	}
	return errors.Join(errs...)
}
