# SPDX-License-Identifier: Apache-2.0
# Writes vectors.json with Python's cryptography package, an implementation of
# AES-GCM and AES-CTR that shares nothing with Go's: python3 vectors.py
import base64, json
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def b64(b):
    return base64.b64encode(b).decode()


kek = bytes(range(32))
options = json.dumps({
    "symkey": b64(bytes(range(100, 132))),
    "digest": "sha256:" + "5e" * 32,
    "cipheroptions": {"nonce": b64(bytes(range(200, 216)))},
}, separators=(",", ":")).encode()
iv12, iv16 = bytes(range(50, 62)), b"\xff" * 15 + b"\xfe"  # the counter wraps
gcm = AESGCM(kek).encrypt(iv12, options, None)
ctr = Cipher(algorithms.AES(kek), modes.CTR(iv16)).encryptor().update(options)
kid = "kbs:///default/image-kek/1"
v1 = {"kid": kid, "wrapped_data": b64(gcm), "iv": b64(iv12), "wrap_type": "A256GCM"}
v1ctr = {"kid": kid, "wrapped_data": b64(ctr), "iv": b64(iv16), "wrap_type": "A256CTR"}
v2 = {"version": "0.1.0", "provider": "kbs", "provider_settings": {}, "annotations": {}}
out = {
    "kek": kek.hex(),
    "options": options.decode(),
    "v1-gcm": v1,
    "v2-gcm": {**v2, **v1},
    "v1-ctr": v1ctr,
    "v2-ctr": {**v1ctr, **v2},
}
with open("vectors.json", "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
