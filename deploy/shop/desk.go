package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// quiet waits until no more events wait than before, and no group is behind.
func (r *run) quiet(ctx context.Context, before int) error {
	over := time.Now().Add(time.Minute)
	for {
		waiting, behind, err := r.desk(ctx)
		if err != nil {
			return err
		}
		if waiting <= before && behind == 0 {
			if before > 0 {
				r.say("  %d events waited before and still do", waiting)
			}
			r.say("  nothing else waits and no group is behind, says the console")
			return nil
		}
		if time.Now().After(over) {
			r.suspect = "deploy/console"
			return fmt.Errorf("%d events wait, %d did before, and groups are %d records behind; kubectl -n %s exec deploy/console -- /service waiting ls",
				waiting, before, behind, r.cluster.namespace)
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// desk asks the console in the cluster how many events wait, and how many records groups have
// still to read.
func (r *run) desk(ctx context.Context) (waiting, behind int, err error) {
	var list struct {
		Items []struct{ Count int } `json:"items"`
	}
	if err := r.console(ctx, &list, "waiting", "ls"); err != nil {
		return 0, 0, err
	}
	for _, one := range list.Items {
		waiting += one.Count
	}
	var lag struct {
		Items []struct{ Records int } `json:"items"`
	}
	if err := r.console(ctx, &lag, "lag"); err != nil {
		return 0, 0, err
	}
	if len(lag.Items) == 0 {
		return 0, 0, errors.New("the console knows no group that has read anything")
	}
	for _, one := range lag.Items {
		behind += one.Records
	}
	return waiting, behind, nil
}

// console asks for JSON. An answer that is not whole is an error; a pod that was just replaced
// may not answer yet, so it is asked for a while.
func (r *run) console(ctx context.Context, into any, words ...string) error {
	args := slices.Concat([]string{"exec", "deployment/console", "--", "/service"}, words, []string{"--json"})
	over := time.Now().Add(30 * time.Second)
	for {
		text, err := r.cluster.kubectl(ctx, args...)
		if err == nil || exitCode(err) == nothingFound {
			return decode([]byte(text), into)
		}
		if time.Now().After(over) {
			return fmt.Errorf("%w: %.300s", err, text)
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// nothingFound is the console's exit code.
const nothingFound = 3
