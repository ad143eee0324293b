// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "github.com/casemate/casemate/keyprovider/keyproviderpb"
)

const (
	// messageOverheadBytes is more than the protobuf framing of one document.
	messageOverheadBytes = 64
	// maxHeaderBytes bounds the HTTP/2 headers of a call; gRPC's own are
	// about 200 bytes.
	maxHeaderBytes = 16 << 10
	// maxStreams bounds the calls in flight on one connection.
	maxStreams = 64
	// maxConnections at once; those beyond wait in the kernel's queue. A client has one.
	maxConnections = 256
	// idleTimeout ends connections without calls, which others wait for.
	idleTimeout = 5 * time.Minute
	// connectTimeout ends connections that never speak HTTP/2.
	connectTimeout = 10 * time.Second
	// stopTimeout is how long calls in flight may take once the server ends.
	stopTimeout = 2 * time.Second
)

// Serve answers key-provider calls on l until ctx is done, then lets the calls
// in flight end, closes l and returns nil. service is an *UnwrapService or a
// *WrapService. A call that panics is answered as an internal error and logged.
func Serve(ctx context.Context, l net.Listener, service pb.KeyProviderServiceServer, log *slog.Logger) error {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(MaxInputBytes+messageOverheadBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}),
		grpc.UnaryInterceptor(recoverCall(log)),
	)
	pb.RegisterKeyProviderServiceServer(server, service)
	stopped := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ended:
		case <-ctx.Done():
			// Stop ends what GracefulStop still waits for.
			timer := time.AfterFunc(stopTimeout, server.Stop)
			server.GracefulStop()
			timer.Stop()
		}
	}()
	err := server.Serve(netutil.LimitListener(l, maxConnections))
	close(ended)
	<-stopped
	// Serve says ErrServerStopped when ctx was done before it began.
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving the key provider: %w", err)
	}
	return nil
}

// recoverCall keeps one bad call from ending the process, which may be PID 1.
func recoverCall(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if r := recover(); r != nil {
				// The value is left out: it may quote what was being handled.
				log.ErrorContext(ctx, "key provider call panicked", "method", info.FullMethod, "type", fmt.Sprintf("%T", r))
				resp, err = nil, status.Error(codes.Internal, "internal error")
			}
		}()
		return handler(ctx, req)
	}
}
