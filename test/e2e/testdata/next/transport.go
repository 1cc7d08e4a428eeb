package transport

import (
	"context"

	"licensed/messages/clusterv1"
)

// Later asks the process at an address for what the release before does not know.
func (t *Transport) Later(ctx context.Context, address string) error {
	_, err := t.request(ctx, address, &clusterv1.Request{Body: &clusterv1.Request_Later{Later: "later"}})
	return err
}
