package gateway

import (
	"context"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
)

// PauseDownloads is a method that the release before does not have.
func (s *service) PauseDownloads(
	ctx context.Context, r *connect.Request[licensedv1.PauseDownloadsRequest],
) (*connect.Response[licensedv1.PauseDownloadsResponse], error) {
	res, err := s.execute(ctx, r.Msg, nil, &licensedv1.Command{Command: &licensedv1.Command_PauseDownloads{
		PauseDownloads: &licensedv1.PauseDownloads{Reason: r.Msg.Reason},
	}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.PauseDownloadsResponse{Sequence: res.sequence, Duplicate: res.duplicate}), nil
}

// pauseDownloads is where it is served.
const pauseDownloads = "/licensed.v1.LicenseService/PauseDownloads"
