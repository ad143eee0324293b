// SPDX-License-Identifier: Apache-2.0

package devmapper

// Linear maps a range of a device (kernel device-mapper/linear.rst).
type Linear struct {
	LengthSectors uint64
	Device        string // absolute path
	OffsetSectors uint64
}

func (t Linear) kind() string    { return "linear" }
func (t Linear) sectors() uint64 { return t.LengthSectors }

func (t Linear) params(l *line) {
	l.device(t.Device)
	l.number(t.OffsetSectors)
}
