// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// logBridge passes what libcontainer says through logrus on to slog, one level
// lower: its errors are also returned, and its text is not written for consoles
// that a host reads.
type logBridge struct{ log *slog.Logger }

// bridgeLog makes libcontainer speak to log. logrus has one logger per process,
// so the last Runtime's log gets everything.
func bridgeLog(log *slog.Logger) {
	std := logrus.StandardLogger()
	hooks := logrus.LevelHooks{}
	hooks.Add(logBridge{log})
	std.ReplaceHooks(hooks)
	std.SetOutput(io.Discard)
}

func (b logBridge) Levels() []logrus.Level { return logrus.AllLevels }

func (b logBridge) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level <= logrus.WarnLevel {
		level = slog.LevelInfo
	}
	b.log.Log(context.Background(), level, "libcontainer: "+e.Message)
	return nil
}
