# SPDX-License-Identifier: Apache-2.0
"""What an owner does with Amazon's own client: peer.py URL CA setup | decrypt ID SECRET BLOB."""
import base64
import json
import sys
import urllib.request
import ssl

import boto3

url, ca, action = sys.argv[1:4]


def client(service, user="setup", password="setup"):
    return boto3.client(service, region_name="eu-central-1", endpoint_url=url, verify=ca,
                        aws_access_key_id=user, aws_secret_access_key=password)


def b64(data):
    return base64.b64encode(data).decode()


if action == "setup":
    iam, kms, secrets = client("iam"), client("kms"), client("secretsmanager")
    iam.create_user(UserName="guest")
    iam.put_user_policy(UserName="guest", PolicyName="guest", PolicyDocument=json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Resource": "*",
                       "Action": ["kms:Decrypt", "kms:GenerateDataKey", "secretsmanager:GetSecretValue"]}]}))
    iam.create_user(UserName="nobody")
    users = {}
    for name in ("guest", "nobody"):
        key = iam.create_access_key(UserName=name)["AccessKey"]
        users[name] = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/app", TargetKeyId=key)
    data = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext={"workload": "web"})
    secrets.create_secret(Name="app/text", SecretString="hunter2 \u00e4")
    old = secrets.create_secret(Name="app/bytes", SecretBinary=b"\x00\xffold")["VersionId"]
    secrets.put_secret_value(SecretId="app/bytes", SecretBinary=b"\x00\xffnew")
    print(json.dumps({"guest": users["guest"], "nobody": users["nobody"], "key": key, "old": old,
                      "plain": b64(data["Plaintext"]), "wrapped": b64(data["CiphertextBlob"])}))
    # From here on signatures and policies count.
    request = urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=ca)).read()
else:
    user, password, blob = sys.argv[4:7]
    answer = client("kms", user, password).decrypt(CiphertextBlob=base64.b64decode(blob), EncryptionContext={"workload": "web"})
    print(b64(answer["Plaintext"]))
