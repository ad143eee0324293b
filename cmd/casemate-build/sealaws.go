// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/aws"
)

const (
	awsScheme     = "aws://"
	awsProvider   = "aws"
	maxCredential = 16 << 10
)

// awsFlags are what seal is told about Amazon's services.
type awsFlags struct {
	region, kmsKey, kmsURL  string
	versionID, versionStage string
	context                 map[string]string
	ca, credentialFile      string
}

func (f *awsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.region, "aws-region", "", "`REGION` of the secret or the KMS key")
	flags.StringVar(&f.versionID, "version-id", "", "`ID` of the version of an aws:// secret")
	flags.StringVar(&f.versionStage, "version-stage", "", "`LABEL` of the version of an aws:// secret; AWSCURRENT when none is named")
	flags.StringVar(&f.kmsKey, "kms-key", "", "`ID`, ARN or alias of the KMS key that wraps the data key")
	flags.StringToStringVar(&f.context, "encryption-context", nil, "`NAME=VALUE` that KMS binds the data key to")
	flags.StringVar(&f.kmsURL, "kms-url", "", "`URL` of KMS, by default the region's public address")
	flags.StringVar(&f.ca, "aws-ca", "", "PEM `FILE` that the certificate of KMS is pinned to")
	flags.StringVar(&f.credentialFile, "aws-credential-file", "", "`FILE` with a credential.json that may kms:GenerateDataKey")
}

// check refuses flags that belong to another form. stored says that a secret's name is sealed.
func (f awsFlags) check(stored bool) error {
	switch {
	case (stored || f.kmsKey != "") != (f.region != ""):
		return usagef("--aws-region belongs to aws://NAME and to --kms-key, which need it")
	case stored && f.kmsKey != "":
		return usagef("--kms-key seals a file's content, not a secret of Amazon's")
	case !stored && (f.versionID != "" || f.versionStage != ""):
		return usagef("--version-id and --version-stage belong to aws://NAME")
	case f.kmsKey == "" && (len(f.context) > 0 || f.kmsURL != "" || f.ca != "" || f.credentialFile != ""):
		return usagef("--encryption-context, --kms-url, --aws-ca and --aws-credential-file belong to --kms-key")
	}
	return nil
}

func (f awsFlags) settings() ([]byte, error) {
	return json.Marshal(struct {
		Region string `json:"region"`
	}{f.region})
}

// stored seals the name of a secret of Secrets Manager.
func (f awsFlags) stored(key *ecdsa.PrivateKey, keyID, name string) ([]byte, error) {
	settings, err := f.settings()
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	annotations, err := json.Marshal(struct {
		VersionID    string `json:"version_id,omitzero"`
		VersionStage string `json:"version_stage,omitzero"`
	}{f.versionID, f.versionStage})
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if err := aws.CheckName(name); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return keyprovider.SealStored(key, keyID, awsProvider, name, settings, annotations)
}

// envelope seals a file's content under a data key of KMS.
func (f awsFlags) envelope(ctx context.Context, key *ecdsa.PrivateKey, keyID, file string) ([]byte, error) {
	secret, err := readFile(file, keyprovider.MaxSealedBytes)
	defer clear(secret)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	settings, err := f.settings()
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	annotations, err := json.Marshal(struct {
		Context map[string]string `json:"encryption_context,omitempty"`
	}{f.context}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	client, done, err := f.client()
	if err != nil {
		return nil, err
	}
	defer done()
	dataKey, wrapped, err := client.DataKey(ctx, f.kmsKey, f.context)
	defer clear(dataKey)
	if err != nil {
		return nil, fmt.Errorf("making a data key under %q: %w", f.kmsKey, err)
	}
	kms := keyprovider.KMSKey{Provider: awsProvider, ID: f.kmsKey, Settings: settings, Annotations: annotations}
	return keyprovider.SealEnvelope(key, keyID, kms, dataKey, wrapped, secret)
}

// client reads what it needs from files; done clears it.
func (f awsFlags) client() (_ *aws.Client, done func(), err error) {
	ca, err := readFile(f.ca, maxCertBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading --aws-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, nil, errors.New("reading --aws-ca: want a PEM certificate")
	}
	credential, err := readFile(f.credentialFile, maxCredential)
	if err != nil {
		clear(credential)
		return nil, nil, fmt.Errorf("reading --aws-credential-file: %w", err)
	}
	client, err := aws.New(aws.Config{
		Region: f.region, KMS: f.kmsURL, Roots: roots,
		Credential: func(context.Context) ([]byte, error) { return bytes.Clone(credential), nil },
	})
	if err != nil {
		clear(credential)
		return nil, nil, err
	}
	return client, func() { client.Close(); clear(credential) }, nil
}

// awsSecret returns the name behind aws://.
func awsSecret(what string) (name string, ok bool) { return strings.CutPrefix(what, awsScheme) }
