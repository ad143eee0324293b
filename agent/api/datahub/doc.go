// SPDX-License-Identifier: Apache-2.0

// Package datahub holds the messages of the services that guest-components'
// confidential-data-hub offers over ttrpc (package api on the wire), generated from
// datahub.proto. It decides nothing: package agent/services says which calls are served.
package datahub
