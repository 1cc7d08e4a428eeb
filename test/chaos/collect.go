package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/test/chaos/check"
	"licensed/test/chaos/client"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/history"
)

// collectors work at the same time, and each request of theirs is repeated for so long.
const (
	collectors     = 8
	collectPatient = 30 * time.Second
)

// collect reads what is recorded of every customer, before and after everything closed was archived, and
// what every gateway answers.
func (r *run) collect(ctx context.Context) (err error) {
	all, _ := r.load.Customers()
	r.Log.Info("collecting", "customers", len(all))
	f, err := os.Create(filepath.Join(r.Dir, customersFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := history.NewCustomersWriter(f)
	if err != nil {
		return err
	}
	ids := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range collectors {
		wg.Go(func() {
			for id := range ids {
				c, failed := r.customer(ctx, id)
				if failed == nil {
					failed = w.Write(c)
				}
				if failed != nil {
					mu.Lock()
					err = errors.Join(err, failed)
					mu.Unlock()
				}
			}
		})
	}
	for _, id := range all {
		ids <- id
	}
	close(ids)
	wg.Wait()
	return errors.Join(err, w.Close())
}

// customer collects one customer. What the service cannot deliver is a violation, not an error.
func (r *run) customer(ctx context.Context, id string) (*history.Customer, error) {
	first, err := insist(ctx, r.patience, r.gateways,
		func(g *client.Client) (*history.Customer, error) { return recorded(ctx, g, id) })
	if err != nil {
		r.fail(
			check.Violation{Check: check.Archive, Customer: id, Text: "the history cannot be listed: " + err.Error()},
		)
		return &history.Customer{ID: id, Gaps: []string{err.Error()}}, nil
	}
	if len(first.Events) == 0 {
		return first, nil
	}
	if err := r.archive(ctx, id); err != nil {
		r.fail(check.Violation{Check: check.Archive, Customer: id, Text: "cannot be archived: " + err.Error()})
	}
	c, err := insist(ctx, r.patience, r.gateways,
		func(g *client.Client) (*history.Customer, error) { return recorded(ctx, g, id) })
	if err != nil {
		r.fail(check.Violation{
			Check: check.Archive, Customer: id, Text: "the archived history cannot be listed: " + err.Error(),
		})
		c = first
	}
	if !sameEvents(first, c) {
		r.fail(check.Violation{Check: check.Archive, Customer: id, Text: "archiving changed the history"})
	}
	if c.Findings, err = insist(ctx, r.patience, r.gateways,
		func(g *client.Client) ([]string, error) { return g.Verify(ctx, id, c.Head) }); err != nil {
		r.fail(check.Violation{Check: check.Structure, Customer: id, Text: "cannot be verified: " + err.Error()})
	}
	r.views(ctx, c)
	return c, nil
}

// archive moves what is closed. Only somebody's own service may be without an archive.
func (r *run) archive(ctx context.Context, id string) error {
	lacks, err := insist(ctx, r.patience, r.gateways, func(g *client.Client) (bool, error) {
		err := g.Archive(ctx, id)
		if status.Code(err) == codes.Unimplemented {
			return true, nil
		}
		return false, err
	})
	if err != nil || !lacks {
		return err
	}
	if _, attached := r.deployment.(*deploy.Attached); !attached {
		return errors.New("the service says that it has no archive")
	}
	r.note("the service has no archive: that archiving changes nothing was not tried")
	return nil
}

// recorded lists a history; there may be none.
func recorded(ctx context.Context, g *client.Client, id string) (*history.Customer, error) {
	c, err := g.Recorded(ctx, id)
	if status.Code(err) == codes.NotFound {
		return &history.Customer{ID: id}, nil
	}
	return c, err
}

// sameEvents compares two listings but for the tier and how much is open.
func sameEvents(a, b *history.Customer) bool {
	return slices.EqualFunc(a.Events, b.Events, func(x, y history.Event) bool {
		x.Archived, y.Archived = false, false
		return reflect.DeepEqual(x, y)
	})
}

// views asks every gateway for the current state.
func (r *run) views(ctx context.Context, c *history.Customer) {
	title := ""
	for id := range r.Rules.Titles {
		title = max(title, id)
	}
	for i, g := range r.gateways {
		for _, in := range []history.Input{
			{Kind: history.ListLicenses, Customer: c.ID, Inactive: true},
			{Kind: history.ListDevices, Customer: c.ID},
			{Kind: history.ListDownloads, Customer: c.ID, Title: title},
		} {
			out, err := insist(ctx, r.patience, r.gateways[i:i+1], func(*client.Client) (history.Output, error) {
				out := g.Do(ctx, &in)
				if out.Outcome != history.Accepted {
					return out, errors.New(out.Reason)
				}
				return out, nil
			})
			if err != nil {
				r.fail(check.Violation{
					Check:    check.Structure,
					Customer: c.ID,
					Text:     fmt.Sprintf("gateway %d does not answer %s: %v", i+1, in.Kind, err),
				})
				continue
			}
			c.Views = append(c.Views, history.View{Member: fmt.Sprintf("gateway %d", i+1), Input: in, Output: out})
		}
	}
}

// insist asks one gateway after the other until one answers, or patience ends.
func insist[T any](
	ctx context.Context, patience time.Duration, gateways []*client.Client, ask func(*client.Client) (T, error),
) (v T, err error) {
	for began, n := time.Now(), 0; ; n++ {
		if v, err = ask(gateways[n%len(gateways)]); err == nil || time.Since(began) > patience || ctx.Err() != nil {
			return v, err
		}
		time.Sleep(min(time.Duration(n+1)*20*time.Millisecond, time.Second))
	}
}
