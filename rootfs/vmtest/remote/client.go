// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// Do sends a request over a fresh connection to a guest, copies what the program prints to out and returns its exit
// status. The caller closes the connection.
func Do(c net.Conn, r Request, out io.Writer) (status int, err error) {
	line, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return 0, fmt.Errorf("sending a request to the guest: %w", err)
	}
	for {
		kind, data, err := readFrame(c)
		if err != nil {
			return 0, fmt.Errorf("reading the guest's answer: %w", err)
		}
		switch kind {
		case kindOutput:
			if _, err := out.Write(data); err != nil {
				return 0, err
			}
		case kindExit:
			return strconv.Atoi(string(data))
		case kindError:
			return 0, errors.New("guest: " + string(data))
		default:
			return 0, fmt.Errorf("frame of kind %d from the guest", kind)
		}
	}
}
