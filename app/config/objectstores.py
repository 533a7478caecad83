"""The keys of the object stores' drivers, Distribution's and the GitLab registry's. None is served yet."""

from __future__ import annotations

from app.config.section import Section, section, setting
from app.config.values import NO_SECRET, Duration, Flag, FreeMap, Secret, Text, Whole, span

_MIB = 1024 * 1024


class S3(Section):
    """`storage.s3`."""

    accesskey: Secret = setting("Access key; not given: the usual chain of AWS.", default=NO_SECRET)
    secretkey: Secret = setting("Secret key.", default=NO_SECRET)
    sessiontoken: Secret = setting("Session token.", default=NO_SECRET)
    region: Text = setting("Region.", default="")
    regionendpoint: Text = setting("Endpoint of another S3, such as MinIO or Ceph.", default="")
    redirectendpoint: Text = setting("Scheme and host of the URLs that clients are sent to.", default="")
    forcepathstyle: Flag = setting("Bucket in the path instead of the host name.", default=False)
    pathstyle: Flag = setting("The GitLab registry's name of `forcepathstyle`.", default=False)
    accelerate: Flag = setting("Transfer acceleration.", default=False)
    bucket: Text = setting("Bucket.", default="")
    encrypt: Flag = setting("Encrypt at the server.", default=False)
    keyid: Text = setting("KMS key to encrypt with.", default="")
    secure: Flag = setting("Use HTTPS.", default=True)
    skipverify: Flag = setting("Do not verify the certificate.", default=False)
    v4auth: Flag = setting("Signature version 4.", default=True)
    chunksize: Whole = setting("Bytes of an upload's part.", default=10 * _MIB)
    multipartcopychunksize: Whole = setting("Bytes of a copy's part.", default=32 * _MIB)
    multipartcopymaxconcurrency: Whole = setting("Parts copied at once.", default=100)
    multipartcopythresholdsize: Whole = setting("Copies of more bytes are made in parts.", default=32 * _MIB)
    rootdirectory: Text = setting("Prefix of every key.", default="")
    storageclass: Text = setting("Storage class.", default="STANDARD")
    objectacl: Text = setting("Canned ACL.", default="private")
    objectownership: Flag = setting("The bucket owns its objects: send no ACL.", default=False)
    useragent: Text = setting("User agent.", default="")
    usedualstack: Flag = setting("IPv6 endpoints as well.", default=False)
    usefipsendpoint: Flag = setting("FIPS endpoints.", default=False)
    maxrequestspersecond: Whole = setting("Requests a second; 0 is no limit.", default=350)
    maxretries: Whole = setting("Tries after the first one.", default=5)
    parallelwalk: Flag = setting("List in parallel.", default=False)
    checksum_algorithm: Text = setting("Checksum sent with uploads.", default="CRC64NVME")
    checksum_disabled: Flag = setting("Send no checksum; MinIO, R2 and Ceph need that.", default=False)
    loglevel: Text = setting("What the client logs.", default="off")


class Gcs(Section):
    """`storage.gcs`."""

    bucket: Text = setting("Bucket.", default="")
    keyfile: Text = setting("File with the service account's key.", default="")
    credentials: FreeMap = setting("The service account's key itself.", default={}, hidden=True)
    rootdirectory: Text = setting("Prefix of every key.", default="")
    chunksize: Whole = setting("Bytes of an upload's part, a multiple of 262144.", default=5 * _MIB)
    maxconcurrency: Whole = setting("Requests at once.", default=50)
    useragent: Text = setting("User agent.", default="container-registry")
    universe_domain: Text = setting("Domain of another Google cloud.", default="")
    parallelwalk: Flag = setting("List in parallel.", default=False)
    debug_log: Flag = setting("Log the client's requests.", default=False)


class AzureCredentials(Section):
    """`storage.azure.credentials`."""

    type: Text = setting("`client_secret`, `shared_key` or `default_credentials`.", default="")
    clientid: Text = setting("Client.", default="")
    tenantid: Text = setting("Tenant.", default="")
    secret: Secret = setting("The client's secret.", default=NO_SECRET)


class Azure(Section):
    """`storage.azure`."""

    accountname: Text = setting("Storage account.", default="")
    accountkey: Secret = setting("The account's key.", default=NO_SECRET)
    container: Text = setting("Container.", default="")
    credentials: AzureCredentials = section(AzureCredentials, "How to sign in.")
    credentials_type: Text = setting("`shared_key`, `client_secret` or `default_credentials`.", default="")
    tenant_id: Text = setting("Tenant.", default="")
    client_id: Text = setting("Client.", default="")
    secret: Secret = setting("The client's secret.", default=NO_SECRET)
    realm: Text = setting("Domain of the service.", default="core.windows.net")
    serviceurl: Text = setting("Endpoint of another service.", default="")
    rootdirectory: Text = setting("Prefix of every key.", default="")
    legacyrootprefix: Flag = setting("Keep the old prefix of a double slash.", default=False)
    trimlegacyrootprefix: Flag = setting("Drop the old prefix of a double slash.", default=False)
    max_retries: Whole = setting("Tries after the first one.", default=5)
    retry_delay: Duration = setting("Wait before the next try.", default=span("100ms"))
    max_retry_delay: Duration = setting("Longest wait before a try.", default=span("0s"))
    retry_try_timeout: Duration = setting("Time-out of one try.", default=span("0s"))
    api_pool_initial_interval: Duration = setting("First wait for a copy to end.", default=span("500ms"))
    api_pool_max_interval: Duration = setting("Longest wait for a copy to end.", default=span("15s"))
    api_pool_max_elapsed_time: Duration = setting("Longest wait for a copy in all.", default=span("5m"))
    debug_log: Flag = setting("Log the client's requests.", default=False)
    debug_log_events: Text = setting("Which of them.", default="")
    copy_status_poll_max_retry: Whole = setting("How often to ask whether a copy has ended.", default=10)
    copy_status_poll_delay: Duration = setting("Wait between two such questions.", default=span("100ms"))
