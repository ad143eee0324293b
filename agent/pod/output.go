// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	outputField = 1 // ReadStreamResponse.data
	// outputHead is what stands before the data in an output: a tag and a length up to streamBuffer.
	outputHead = 4
	// outputMax is the data of one output. The usual request, for 32 KiB, is answered with a little less, so that
	// what is made of it fits into the Go runtime's largest size class, which has just that size.
	outputMax = 32<<10 - 16
)

// output is a kata.ReadStreamResponse that is encoded as it leaves the stream: its data
// is copied once less. It has no fields to be read, only its encoding.
type output struct{ wire []byte }

// newOutput takes data behind outputHead bytes to write on, or nothing at all.
func newOutput(headed []byte) *output {
	if len(headed) <= outputHead {
		return &output{}
	}
	n := uint64(len(headed) - outputHead)
	head := protowire.AppendTag(make([]byte, 0, outputHead), outputField, protowire.BytesType)
	head = protowire.AppendVarint(head, n)
	wire := headed[outputHead-len(head):]
	copy(wire, head)
	return &output{wire: wire}
}

// ProtoReflect implements proto.Message.
func (o *output) ProtoReflect() protoreflect.Message {
	return outputMessage{Message: (*kata.ReadStreamResponse)(nil).ProtoReflect(), wire: o.wire}
}

// outputMessage is an empty message with an encoding of its own.
type outputMessage struct {
	protoreflect.Message
	wire []byte
}

// ProtoMethods implements protoreflect.Message.
func (m outputMessage) ProtoMethods() *protoiface.Methods {
	return &protoiface.Methods{
		Flags: protoiface.SupportMarshalDeterministic,
		Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
			if len(in.Buf) == 0 {
				return protoiface.MarshalOutput{Buf: m.wire}, nil
			}
			return protoiface.MarshalOutput{Buf: append(in.Buf, m.wire...)}, nil
		},
		CheckInitialized: func(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
			return protoiface.CheckInitializedOutput{}, nil // nothing is required
		},
	}
}
