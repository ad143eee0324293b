// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	payloadField = 2 // ttrpc.Response.payload
	// Room is what [Encoded] leaves free, in bytes: a frame's header, a tag and the length of a message.
	Room = frameHeaderSize + 1 + 4
)

// Encoded is an answer that encodes itself: it is written as it stands and copied no more.
type Encoded interface {
	// Encoded returns the answer's message behind head bytes to write on, at least Room.
	Encoded() (b []byte, head int)
	// Release says that the answer has been written.
	Release()
}

// answer handles a request and writes what came of it.
func (s *Server) answer(k call) {
	defer k.conn.release(k.size)
	if k.refused != nil {
		k.conn.settle(k.id)
		k.conn.write(failed(k.id, k.refused))
		return
	}
	resp, err := s.handle(k)
	if e, ok := resp.(Encoded); ok && err == nil {
		defer e.Release()
	}
	k.conn.settle(k.id)
	k.conn.write(encode(k.id, resp, err))
}

func (s *Server) handle(k call) (any, error) {
	service, ok := s.cfg.Methods[k.req.Service]
	if !ok {
		return nil, status.Error(codes.Unimplemented, "no such service")
	}
	method, ok := service[k.req.Method]
	if !ok {
		return nil, status.Error(codes.Unimplemented, "no such method")
	}
	ctx := k.conn.ctx
	if k.req.TimeoutNano != 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(k.req.TimeoutNano))
		defer cancel()
		ctx = limited
	}
	decode := func(v any) error {
		msg, ok := v.(proto.Message)
		if !ok {
			return errors.New("decoding a request: not into a message")
		}
		if proto.Unmarshal(k.req.Payload, msg) != nil {
			return malformed().Err()
		}
		return nil
	}
	info := &ttrpc.UnaryServerInfo{FullMethod: "/" + k.req.Service + "/" + k.req.Method}
	return s.cfg.Intercept(ctx, decode, info, method)
}

func malformed() *status.Status { return status.New(codes.InvalidArgument, "the request is malformed") }

// encode makes the frame of an answer.
func encode(id uint32, resp any, err error) []byte {
	if err != nil {
		st, ok := status.FromError(err)
		if !ok || st.Code() == codes.OK {
			st = status.New(codes.Internal, "internal error")
		}
		return failed(id, st)
	}
	var b []byte
	head := Room
	switch v := resp.(type) {
	case Encoded:
		b, head = v.Encoded()
	case proto.Message:
		if !v.ProtoReflect().IsValid() {
			return failed(id, status.New(codes.Internal, "internal error"))
		}
		b, err = proto.MarshalOptions{}.MarshalAppend(make([]byte, Room, Room+proto.Size(v)), v)
	default:
		err = errors.New("encoding an answer: not a message")
	}
	if err != nil || head < Room {
		return failed(id, status.New(codes.Internal, "internal error"))
	}
	if len(b)-head > messageSizeMax-Room {
		return failed(id, status.New(codes.ResourceExhausted, "the answer is larger than a message"))
	}
	return framed(id, b, head)
}

// framed puts a frame's header and that of its ttrpc.Response before b[head:].
func framed(id uint32, b []byte, head int) []byte {
	n := len(b) - head
	at := head
	if n > 0 {
		at -= 1 + protowire.SizeVarint(uint64(n))
		protowire.AppendVarint(protowire.AppendTag(b[at:at], payloadField, protowire.BytesType), uint64(n))
	}
	b = b[at-frameHeaderSize:]
	putHeader(b, id)
	return b
}

// failed makes the frame of an answer that is only a status.
func failed(id uint32, st *status.Status) []byte {
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, frameHeaderSize), &ttrpc.Response{Status: st.Proto()})
	if err != nil || len(b) > messageSizeMax { // of what a handler made of its own words neither happens
		b, _ = proto.MarshalOptions{}.MarshalAppend(make([]byte, frameHeaderSize), &ttrpc.Response{Status: status.New(st.Code(), "").Proto()})
	}
	putHeader(b, id)
	return b
}

func putHeader(b []byte, id uint32) {
	binary.BigEndian.PutUint32(b[0:], uint32(len(b)-frameHeaderSize))
	binary.BigEndian.PutUint32(b[4:], id)
	b[8], b[9] = frameResponse, 0
}
