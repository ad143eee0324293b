// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxSNPEvidenceSize holds a report and the 16 KiB of certificates that the kernel
// passes on, each byte as a number of up to three digits and a comma.
const MaxSNPEvidenceSize = 256 << 10

// SNPEvidence is a report and the certificates that the host sent along.
type SNPEvidence struct {
	Report SNPReport
	Certs  []SNPCert // nil when there are none
}

// fieldKind says how a field of the report is written in JSON.
type fieldKind int

const (
	kindU32     fieldKind = iota
	kindU64               // a plain number, above 2^53 too
	kindOctets            // array of numbers
	kindTCB               // object by product
	kindVersion           // {major,minor,build} from bytes build, minor, major
	kindCPU               // one byte, null before version 3
	kindMit               // u64, null before version 5
)

type snpField struct {
	name string
	at   int
	size int // kindOctets only
	kind fieldKind
}

// snpFields is the JSON form that virtee's sev crate gives a report and Trustee
// reads, in its order; version and signature are handled beside it.
func snpFields() []snpField {
	return []snpField{
		{"guest_svn", snpGuestSVN, 0, kindU32},
		{"policy", snpPolicy, 0, kindU64},
		{"family_id", snpFamilyID, 16, kindOctets},
		{"image_id", snpImageID, 16, kindOctets},
		{"vmpl", snpVMPL, 0, kindU32},
		{"sig_algo", snpSigAlgo, 0, kindU32},
		{"current_tcb", snpCurrentTCB, 0, kindTCB},
		{"plat_info", snpPlatformInfo, 0, kindU64},
		{"key_info", snpKeyInfo, 0, kindU32},
		{"report_data", snpReportData, ReportDataSize, kindOctets},
		{"measurement", snpMeasurement, 48, kindOctets},
		{"host_data", snpHostData, 32, kindOctets},
		{"id_key_digest", snpIDKeyDigest, 48, kindOctets},
		{"author_key_digest", snpAuthorDigest, 48, kindOctets},
		{"report_id", snpReportID, 32, kindOctets},
		{"report_id_ma", snpReportIDMA, 32, kindOctets},
		{"reported_tcb", snpReportedTCB, 0, kindTCB},
		{"cpuid_fam_id", snpFamily, 0, kindCPU},
		{"cpuid_mod_id", snpModel, 0, kindCPU},
		{"cpuid_step", snpStepping, 0, kindCPU},
		{"chip_id", snpChipID, 64, kindOctets},
		{"committed_tcb", snpCommittedTCB, 0, kindTCB},
		{"current", snpCurrent, 0, kindVersion},
		{"committed", snpCommitted, 0, kindVersion},
		{"launch_tcb", snpLaunchTCB, 0, kindTCB},
		{"launch_mit_vector", snpLaunchMit, 0, kindMit},
		{"current_mit_vector", snpCurrentMit, 0, kindMit},
	}
}

// Encode returns the JSON evidence that Trustee's snp verifier reads. Certificates
// without a VCEK or VLEK are left out as null, because Trustee then looks the chain
// up itself and refuses a list without a leaf.
func (e SNPEvidence) Encode() (json.RawMessage, error) {
	if e.Report.product == "" {
		return nil, errors.New("encoding SNP evidence: no report")
	}
	r := &e.Report
	out := fmt.Appendf(nil, `{"attestation_report":{"version":%d`, r.Version())
	for _, f := range snpFields() {
		out = fmt.Appendf(out, `,"%s":`, f.name)
		out = r.appendField(out, f)
	}
	out = appendOctets(append(out, `,"signature":{"r":`...), r.raw[snpSigR:snpSigR+snpSigPart])
	out = appendOctets(append(out, `,"s":`...), r.raw[snpSigS:snpSigS+snpSigPart])
	out = append(out, `}},"cert_chain":`...)
	out, err := appendCerts(out, e.Certs)
	if err != nil {
		return nil, fmt.Errorf("encoding SNP evidence: %w", err)
	}
	return append(out, '}'), nil
}

func (r *SNPReport) appendField(out []byte, f snpField) []byte {
	switch f.kind {
	case kindU32:
		return strconv.AppendUint(out, uint64(r.u32(f.at)), 10)
	case kindU64:
		return strconv.AppendUint(out, r.u64(f.at), 10)
	case kindOctets:
		return appendOctets(out, r.raw[f.at:f.at+f.size])
	case kindTCB:
		t := r.tcb(f.at)
		fmc := "null"
		if r.product == Turin {
			fmc = strconv.Itoa(int(t.FMC))
		}
		return fmt.Appendf(out, `{"fmc":%s,"bootloader":%d,"tee":%d,"snp":%d,"microcode":%d}`,
			fmc, t.Bootloader, t.TEE, t.SNP, t.Microcode)
	case kindVersion:
		b := r.raw[f.at : f.at+3]
		return fmt.Appendf(out, `{"major":%d,"minor":%d,"build":%d}`, b[2], b[1], b[0])
	case kindCPU:
		if r.Version() >= cpuidVersion {
			return strconv.AppendUint(out, uint64(r.raw[f.at]), 10)
		}
	case kindMit:
		if r.Version() >= mitVersion {
			return strconv.AppendUint(out, r.u64(f.at), 10)
		}
	}
	return append(out, "null"...)
}

// ParseSNPEvidence rebuilds the raw report from the JSON form. Encoding the result
// again gives the same report; a report with other bytes does not pass.
func ParseSNPEvidence(raw []byte) (SNPEvidence, error) {
	r := readObject("SNP evidence", raw, MaxSNPEvidenceSize)
	report := r.object("attestation_report")
	chain, hasChain := r.takeOptional("cert_chain")
	if err := r.done(); err != nil {
		return SNPEvidence{}, err
	}
	var e SNPEvidence
	var err error
	if e.Report, err = readSNPReport(report); err != nil {
		return SNPEvidence{}, err
	}
	if hasChain {
		if e.Certs, err = parseCerts(chain); err != nil {
			return SNPEvidence{}, fmt.Errorf("parsing SNP evidence: cert_chain: %w", err)
		}
	}
	return e, nil
}

func readSNPReport(in *reader) (SNPReport, error) {
	var out SNPReport
	version := uint32(in.uint("version", 32))
	binary.LittleEndian.PutUint32(out.raw[snpVersion:], version)
	// The layout of the TCB fields depends on the processor, so that comes first.
	family, model := in.peekByte("cpuid_fam_id"), in.peekByte("cpuid_mod_id")
	if in.err != nil {
		return SNPReport{}, in.err
	}
	var err error
	if out.product, err = snpProduct(version, family, model); err != nil {
		return SNPReport{}, fmt.Errorf("parsing SNP evidence: %w", err)
	}
	for _, f := range snpFields() {
		in.snpField(&out, f)
	}
	signature := in.object("signature")
	copy(out.raw[snpSigR:], signature.octets("r", snpSigPart))
	copy(out.raw[snpSigS:], signature.octets("s", snpSigPart))
	in.wrap("signature", signature.done())
	if err := in.done(); err != nil {
		return SNPReport{}, err
	}
	return ParseSNPReport(out.raw[:])
}

// peekByte reads a byte without taking it; absent and null are 0.
func (r *reader) peekByte(member string) byte {
	v, ok := r.members[member]
	if r.err != nil || !ok || v.Kind() == 'n' {
		return 0
	}
	return byte(r.uintOf(member, v, 8))
}

// snpField takes one field into its place in the report.
func (r *reader) snpField(out *SNPReport, f snpField) {
	dst := out.raw[f.at:]
	switch f.kind {
	case kindU32:
		binary.LittleEndian.PutUint32(dst, uint32(r.uint(f.name, 32)))
	case kindU64:
		binary.LittleEndian.PutUint64(dst, r.uint(f.name, 64))
	case kindOctets:
		copy(dst, r.octets(f.name, f.size))
	case kindTCB:
		tcb := r.object(f.name)
		out.setTCB(f.at, tcb.tcb(out.product))
		r.wrap(f.name, tcb.done())
	case kindVersion:
		v := r.object(f.name)
		dst[0], dst[1], dst[2] = byte(v.uint("build", 8)), byte(v.uint("minor", 8)), byte(v.uint("major", 8))
		r.wrap(f.name, v.done())
	case kindCPU:
		if v, ok := r.sinceVersion(out, f.name, cpuidVersion); ok {
			dst[0] = byte(r.uintOf(f.name, v, 8))
		}
	case kindMit:
		if v, ok := r.sinceVersion(out, f.name, mitVersion); ok {
			binary.LittleEndian.PutUint64(dst, r.uintOf(f.name, v, 64))
		}
	}
}

// sinceVersion takes a member that must be there from the given report version on
// and must be null or absent before it.
func (r *reader) sinceVersion(out *SNPReport, member string, version uint32) (jsontext.Value, bool) {
	v, ok := r.takeOptional(member)
	if r.err != nil {
		return nil, false
	}
	if want := out.Version() >= version; ok != want {
		if want {
			r.fail(member, "missing in a version %d report", out.Version())
		} else {
			r.fail(member, "present in a version %d report", out.Version())
		}
		return nil, false
	}
	return v, ok
}

func (r *reader) tcb(product SNPProduct) SNPTCB {
	var t SNPTCB
	fmc, ok := r.takeOptional("fmc")
	switch {
	case r.err != nil:
		return t
	case ok != (product == Turin):
		r.fail("fmc", "must be a number on Turin and null elsewhere")
		return t
	case ok:
		t.FMC = uint8(r.uintOf("fmc", fmc, 8))
	}
	t.Bootloader, t.TEE = uint8(r.uint("bootloader", 8)), uint8(r.uint("tee", 8))
	t.SNP, t.Microcode = uint8(r.uint("snp", 8)), uint8(r.uint("microcode", 8))
	return t
}
