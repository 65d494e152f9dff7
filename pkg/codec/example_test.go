package codec_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/sr/srfake"

	"example.com/keyline/pkg/codec"
)

func Example() {
	ctx := context.Background()
	registry := srfake.New() // stands for a real one
	defer registry.Close()
	cfg := codec.Config{URL: registry.URL()}

	// A step of its own, before any service starts, registers all versions.
	subject := codec.Subject{Name: codec.SubjectName(placed{}), Versions: []string{placedV1, placedV2}}
	if err := codec.Provision(ctx, cfg, []codec.Subject{subject}); err != nil {
		fmt.Println(err)
		return
	}

	c, err := codec.New(cfg, placed{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Verify(ctx); err != nil {
		fmt.Println(err)
		return
	}
	value, err := c.Encode(placed{ID: "o-1", Currency: "EUR", Reason: "gift"})
	if err != nil {
		fmt.Println(err)
		return
	}
	typ, err := c.Type(ctx, value)
	fmt.Println(typ, err)
	event, err := codec.Decode[placed](ctx, c, value)
	fmt.Println(event.ID, event.Currency, event.Reason, err)
	// Output:
	// test.Placed <nil>
	// o-1 EUR gift <nil>
}
