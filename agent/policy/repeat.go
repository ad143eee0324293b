// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"

	"google.golang.org/protobuf/proto"
)

const (
	// repeatsMax bounds the requests that are remembered: what 256 containers are asked for over and over.
	repeatsMax = 1024
	// repeatSize bounds one of them in bytes.
	repeatSize = 256
)

// repeats holds requests, as repeatKey has them, that were allowed and changed nothing. The answer to a request
// depends on the policy, the request and the state alone: no other built-in function is there (builtins.go). So until
// the state changes it stays what it was. A reader of output asks the same thing thousands of times a second.
type repeats map[string]struct{}

// repeatKey returns what tells a request from any other, or nil for one that is too large to be remembered or has no
// form on the wire.
func repeatKey(request string, msg proto.Message) []byte {
	options := proto.MarshalOptions{Deterministic: true}
	if len(request)+options.Size(msg) > repeatSize {
		return nil
	}
	key := append(make([]byte, 0, 2*repeatSize), request...)
	key = append(key, 0)
	key = append(append(key, msg.ProtoReflect().Descriptor().FullName()...), 0)
	key, err := options.MarshalAppend(key, msg)
	if err != nil {
		return nil
	}
	return key
}

// repeated says whether the request was allowed in the present state. It has the turn for as long as it looks: a
// decision that another request has changed the state by holds this one back too.
func (p *Policy) repeated(ctx context.Context, key []byte) (bool, error) {
	if key == nil {
		return false, nil
	}
	if err := p.take(ctx); err != nil {
		return false, err
	}
	defer p.give()
	_, ok := p.repeats[string(key)]
	return ok, nil
}

// remember is called by whoever has the turn.
func (p *Policy) remember(key []byte) {
	if key == nil {
		return
	}
	if len(p.repeats) >= repeatsMax {
		clear(p.repeats)
	}
	p.repeats[string(key)] = struct{}{}
}
