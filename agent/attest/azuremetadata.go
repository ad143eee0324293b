// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	// azureMetadataURL is link-local: the host answers. What it says is verified by the
	// relying party, so plain HTTP takes nothing away.
	azureMetadataURL  = "http://169.254.169.254"
	azureMetadataTime = 30 * time.Second
	// maxMetadata is above a TD quote in base64.
	maxMetadata = 256 << 10
)

// azureMetadata is Azure's instance metadata service.
type azureMetadata struct {
	url    string
	client *http.Client
}

func newAzureMetadata(url string) azureMetadata {
	if url == "" {
		url = azureMetadataURL
	}
	return azureMetadata{url, &http.Client{
		Timeout:       azureMetadataTime,
		Transport:     &http.Transport{DisableKeepAlives: true}, // and no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ask sends a request and reads its answer into out.
func (m azureMetadata) ask(ctx context.Context, method, path string, body []byte, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, m.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Metadata", "true")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := m.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking Azure's metadata service: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking Azure's metadata service: status %d for %s", response.StatusCode, path)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxMetadata+1))
	if err != nil {
		return fmt.Errorf("asking Azure's metadata service: %w", err)
	}
	if len(text) > maxMetadata {
		return fmt.Errorf("asking Azure's metadata service: over %d bytes for %s", maxMetadata, path)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("asking Azure's metadata service: malformed answer for %s", path)
	}
	return nil
}

// vcek returns the DER certificate of the chip's key.
func (m azureMetadata) vcek(ctx context.Context) ([]byte, error) {
	var answer struct {
		VCEK string `json:"vcekCert"`
	}
	if err := m.ask(ctx, http.MethodGet, "/metadata/THIM/amd/certification", nil, &answer); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(answer.VCEK))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Bytes) > evidence.MaxSNPCertSize {
		return nil, errors.New("asking Azure's metadata service: vcekCert is no PEM certificate")
	}
	return block.Bytes, nil
}

// tdQuote has the platform's quoting enclave sign a TDREPORT of 1024 bytes.
func (m azureMetadata) tdQuote(ctx context.Context, report []byte) ([]byte, error) {
	body := fmt.Appendf(nil, `{"report":"%s"}`, base64.RawURLEncoding.EncodeToString(report))
	var answer struct {
		Quote string `json:"quote"`
	}
	if err := m.ask(ctx, http.MethodPost, "/acc/tdquote", body, &answer); err != nil {
		return nil, err
	}
	quote, err := base64.RawURLEncoding.DecodeString(answer.Quote)
	if err != nil || len(quote) == 0 || len(quote) > evidence.MaxTDXQuoteSize {
		return nil, errors.New("asking Azure's metadata service: no quote in base64url")
	}
	return quote, nil
}
