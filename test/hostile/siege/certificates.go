package siege

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"licensed/actors/license"
	"licensed/gateway/auth"
	"licensed/internal/payload"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/messages/nodev1"
)

// exchange is the only method of the node port. What a stream begins with is as package transport has it.
var exchange = &grpc.StreamDesc{StreamName: "Exchange", ClientStreams: true, ServerStreams: true}

const exchangePath = "/licensed.cluster.v1.Peer/Exchange"

// errRefused: the process did not accept the attacker's stream.
var errRefused = errors.New("refused")

// peer sends one request to the node port of a member as a process of the cluster with these certificates, and returns
// the response. Errors: errRefused if the process refused the connection or the stream.
func (s *siege) peer(ctx context.Context, m *member, certificates []tls.Certificate, r *clusterv1.Request) (
	*clusterv1.Response, error,
) {
	secure := insecure.NewCredentials()
	if s.encrypted(nodePort) {
		secure = credentials.NewTLS(&tls.Config{
			RootCAs: s.secrets.ca.pool(), ServerName: m.host, Certificates: certificates,
		})
	}
	conn, err := grpc.NewClient("passthrough:///"+m.at(nodePort), grpc.WithTransportCredentials(secure))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	// "2" is the present wire version; a process of another one reports it, which is no refusal of the attacker.
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("wire-version", "2", "cluster-bin", clusterName))
	stream, err := conn.NewStream(ctx, exchange, exchangePath)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	first := &clusterv1.Frame{}
	if err := stream.RecvMsg(first); err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	r.Id, r.TimeoutMicros = 1, (5 * time.Second).Microseconds()
	if err := stream.SendMsg(&clusterv1.Frame{Requests: []*clusterv1.Request{r}}); err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	for {
		frame := &clusterv1.Frame{}
		if err := stream.RecvMsg(frame); err != nil {
			if errors.Is(err, io.EOF) || status.Code(err) != codes.DeadlineExceeded {
				err = fmt.Errorf("%w: %w", errRefused, err)
			}
			return nil, err
		}
		for _, response := range frame.Responses {
			return response, nil
		}
	}
}

// peerRequest is something that only some processes, or operators, may ask of a node.
type peerRequest struct {
	name string
	make func() (*clusterv1.Request, error)
}

// operator returns an operator's request to the owner of a customer.
func operatorRequest(m proto.Message) func() (*clusterv1.Request, error) {
	return func() (*clusterv1.Request, error) {
		name, data, err := payload.Codec{}.Marshal(m)
		return &clusterv1.Request{
			Kind: license.Name, Aggregate: canaryCustomer + "0",
			Body: &clusterv1.Request_Operator{Operator: &clusterv1.OperatorRequest{
				Payload: &clusterv1.Payload{Type: name, Data: data},
			}},
		}, err
	}
}

// peerRequests are all of them. Those that a node executes at any shard's owner are sent to each node.
func peerRequests() []peerRequest {
	return []peerRequest{
		{"drain", func() (*clusterv1.Request, error) {
			return &clusterv1.Request{Body: &clusterv1.Request_Drain{Drain: &clusterv1.DrainRequest{}}}, nil
		}},
		{"import", operatorRequest(&nodev1.ImportRequest{End: true})},
		{"forget", operatorRequest(&nodev1.ForgetRequest{})},
		{"archive", operatorRequest(&nodev1.ArchiveRequest{All: true})},
		{"query for a caller that does not exist", func() (*clusterv1.Request, error) {
			name, data, err := payload.Codec{}.Marshal(&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{
				ListLicenses: &licensedv1.ListLicenses{},
			}})
			return &clusterv1.Request{
				Kind: license.Name, Aggregate: canaryCustomer + "0",
				Body: &clusterv1.Request_Query{Query: &clusterv1.Query{
					Payload: &clusterv1.Payload{Type: name, Data: data},
				}},
			}, err
		}},
	}
}

// forgedOperator says that a caller is an operator, without a token that proves it.
func forgedOperator() *clusterv1.Caller {
	return &clusterv1.Caller{
		Principal: issuer + ":forged", Roles: uint32(auth.RolesOf(licensedv1.Role_ROLE_OPERATOR)), Reason: "siege",
		Method: licensedv1connect.AdminServiceDrainNodeProcedure, Token: "forged",
	}
}

// atNodes sends each of the requests to every node, which must refuse all.
func atNodes(name string, requests []peerRequest, certificates func(s *siege) ([]tls.Certificate, error),
	caller func() *clusterv1.Caller,
) Attack {
	return Attack{"node port", name, "refused", func(ctx context.Context, s *siege) (o Outcome, err error) {
		if !s.known["node node-sans"] {
			return Outcome{Skipped: true, Seen: "its node port has another protocol, and no names of roles"}, nil
		}
		certificates, err := certificates(s)
		if err != nil {
			return o, err
		}
		for _, request := range requests {
			for _, m := range s.nodes() {
				r, err := request.make()
				if err != nil {
					return o, err
				}
				if caller != nil {
					r.Caller = caller()
				}
				response, err := s.peer(ctx, m, certificates, r)
				if errors.Is(err, errRefused) {
					s.answered(err.Error())
					o = held("refused at the connection: %s", short(err.Error()))
					continue
				}
				if err != nil {
					return o, fmt.Errorf("%s at %s: %w", request.name, m.name, err)
				}
				s.answered(response.Message)
				switch response.Code {
				case clusterv1.Code_CODE_DENIED:
					o = held("denied: %s", short(response.Message))
				case clusterv1.Code_CODE_NOT_OWNER: // Another node has the customer: it decides.
				default:
					return breached("%s: %s answered %v %s", request.name, m.name, response.Code,
						short(response.Message)), nil
				}
			}
		}
		if o.Seen == "" {
			return o, errors.New("no node owns the customer")
		}
		return o, nil
	}}
}

// certificateAttacks are those on the node port.
func certificateAttacks() []Attack {
	signedBy := func(by func(*secrets) *authority, of identity) func(*siege) ([]tls.Certificate, error) {
		return func(s *siege) ([]tls.Certificate, error) {
			pair, _, err := by(s.secrets).sign(of)
			return []tls.Certificate{pair}, err
		}
	}
	ours := func(s *secrets) *authority { return s.ca }
	foreign := func(s *secrets) *authority { return s.foreign }
	all := peerRequests()
	operators := all[:len(all)-1]
	return []Attack{
		atNodes("no certificate", all, func(*siege) ([]tls.Certificate, error) { return nil, nil }, forgedOperator),
		atNodes("certificate of another authority", all, signedBy(foreign, identity{uri: nodeURI}), forgedOperator),
		atNodes("expired certificate of a node", all, signedBy(ours, identity{uri: nodeURI, expired: true}),
			forgedOperator),
		atNodes("client's certificate of the right authority", all,
			signedBy(ours, identity{uri: "spiffe://licensed.dev/service"}), forgedOperator),
		atNodes("gateway's certificate, for nobody", all,
			func(s *siege) ([]tls.Certificate, error) { return []tls.Certificate{s.secrets.gateway}, nil }, nil),
		atNodes("gateway's certificate, for a forged operator", operators,
			func(s *siege) ([]tls.Certificate, error) { return []tls.Certificate{s.secrets.gateway}, nil },
			forgedOperator),
		atNodes("stolen certificate of a node, for a forged operator", operators,
			func(s *siege) ([]tls.Certificate, error) { return []tls.Certificate{s.secrets.node}, nil },
			forgedOperator),
	}
}
