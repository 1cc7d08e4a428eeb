package transport

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/grpclog"
)

// grpcLog is the log of gRPC, which is one for the whole process. protoactor replaces it without a lock
// whenever a remote starts, while others may be using it. So it is put back each time, and a start waits
// for a moment in which nothing is logged, and at its end until its own server has logged. Who logs passes a lock that a start passes too, so that what
// was logged until then has happened before.
//
// It keeps nothing. What goes wrong with peers is told by this package, to who started the transport.
type grpcLog struct {
	mu      sync.Mutex
	last    time.Time // when something was logged
	servers int       // that have begun to listen
}

var (
	_ grpclog.LoggerV2 = (*grpcLog)(nil)

	// theGRPCLog is global as what it replaces.
	theGRPCLog = &grpcLog{}
)

// oneStart is held while a remote starts.
var oneStart sync.Mutex

func (g *grpcLog) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = time.Now()
}

// Bounds of waiting for a moment in which nothing is logged.
const (
	calm        = 10 * time.Millisecond
	waitForCalm = 250 * time.Millisecond
)

// listening is what a server of gRPC logs last before it accepts connections, in a goroutine that a remote
// starts and does not wait for.
const listening = "ListenSocket created"

// listeners returns how many servers have begun to listen.
func (g *grpcLog) listeners() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.servers
}

// awaitListener returns when more servers than before listen, or none has for too long.
func (g *grpcLog) awaitListener(before int) {
	for began := time.Now(); g.listeners() == before && time.Since(began) < waitForCalm; {
		time.Sleep(calm / 10)
	}
}

// awaitCalm returns when nothing was logged for a moment, or has been for too long.
func (g *grpcLog) awaitCalm() {
	for began := time.Now(); time.Since(began) < waitForCalm; {
		g.mu.Lock()
		since := time.Since(g.last)
		g.mu.Unlock()
		if since >= calm {
			return
		}
		time.Sleep(calm - since)
	}
}

// Info implements grpclog.LoggerV2.
func (g *grpcLog) Info(...any) { g.pass() }

// Infoln implements grpclog.LoggerV2.
func (g *grpcLog) Infoln(args ...any) {
	g.pass()
	if strings.Contains(fmt.Sprint(args...), listening) {
		g.mu.Lock()
		g.servers++
		g.mu.Unlock()
	}
}

// Infof implements grpclog.LoggerV2.
func (g *grpcLog) Infof(string, ...any) { g.pass() }

// Warning implements grpclog.LoggerV2.
func (g *grpcLog) Warning(...any) { g.pass() }

// Warningln implements grpclog.LoggerV2.
func (g *grpcLog) Warningln(...any) { g.pass() }

// Warningf implements grpclog.LoggerV2.
func (g *grpcLog) Warningf(string, ...any) { g.pass() }

// Error implements grpclog.LoggerV2.
func (g *grpcLog) Error(...any) { g.pass() }

// Errorln implements grpclog.LoggerV2.
func (g *grpcLog) Errorln(...any) { g.pass() }

// Errorf implements grpclog.LoggerV2.
func (g *grpcLog) Errorf(string, ...any) { g.pass() }

// Fatal implements grpclog.LoggerV2. gRPC ends the process after it.
func (g *grpcLog) Fatal(...any) { g.pass() }

// Fatalln implements grpclog.LoggerV2.
func (g *grpcLog) Fatalln(...any) { g.pass() }

// Fatalf implements grpclog.LoggerV2.
func (g *grpcLog) Fatalf(string, ...any) { g.pass() }

// V implements grpclog.LoggerV2.
func (g *grpcLog) V(int) bool { g.pass(); return false }

// quiet leaves out of protoactor's log what it thinks worth telling about its normal life.
//
// It is also where gRPC's log is put back: the first thing that a remote does after replacing it, and
// before anything of its own uses it, is to log.
type quiet struct {
	slog.Handler
	starting *atomic.Bool // the next call is that of the remote
}

// Enabled implements slog.Handler.
func (h quiet) Enabled(ctx context.Context, l slog.Level) bool {
	if h.starting.CompareAndSwap(true, false) {
		grpclog.SetLoggerV2(theGRPCLog)
	}
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h quiet) WithAttrs(a []slog.Attr) slog.Handler {
	return quiet{h.Handler.WithAttrs(a), h.starting}
}

// WithGroup implements slog.Handler.
func (h quiet) WithGroup(name string) slog.Handler {
	return quiet{h.Handler.WithGroup(name), h.starting}
}
