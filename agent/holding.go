// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// holdingKey is the context key of a request's *holding.
type holdingKey struct{}

// holding keeps a request's decision from the judgement to the end of handling. One goroutine asks and ends it, and
// decoding, where it is asked, comes before the handler's body: no lock is needed.
type holding struct{ decision Decision }

// Begun tells the policy that the handler of ctx's request has made what it allowed visible to the handlers of other
// requests, such as a reserved container id. A handler that may block afterwards, as CreateContainer does while an
// image is pulled, calls it; otherwise others are judged once the handler has ended.
func Begun(ctx context.Context) {
	if h, ok := ctx.Value(holdingKey{}).(*holding); ok && h.decision != nil {
		h.decision.Begun()
	}
}

// ask decides and keeps the decision. A policy without a state has none.
func (h *holding) ask(ctx context.Context, p Policy, request string, msg proto.Message) error {
	d, ok := p.(Decider)
	if !ok {
		return p.Allow(ctx, request, msg)
	}
	decision, err := d.Decide(ctx, request, msg)
	if err == nil {
		h.decision = decision
	}
	return err
}

// end settles the decision by how handling ended.
func (h *holding) end(err error) {
	switch {
	case h.decision == nil:
	case err != nil:
		h.decision.Undo()
	default:
		h.decision.Begun()
	}
}
