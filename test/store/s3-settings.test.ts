import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { isSluiceError, type SluiceError } from "../../src/errors/error.ts";
import { openS3 } from "../../src/store/s3.ts";
import type { StoreSettings } from "../../src/config/config.ts";
import { openStore } from "../../src/store/open.ts";
import { s3Settings } from "../../src/store/s3-settings.ts";
import { parseFault, parseListPage } from "../../src/store/s3-xml.ts";

const settings = (url: string, given: StoreSettings = {}, env: Record<string, string> = {}) =>
  s3Settings(new URL(url), given, env);

describe("settings of an S3 store", () => {
  test("Amazon's own: region by lookup, bucket in the host, five parts at once of 5 MiB, signed", () => {
    expect(settings("s3://bucket/some/path/")).toMatchObject({
      bucket: "bucket",
      prefix: "some/path/",
      endpoint: undefined,
      region: undefined,
      isPathStyle: false,
      isPayloadSigned: true,
      isCertificateChecked: true,
      partSizeBytes: 5 * 1024 * 1024,
      concurrency: 5,
      credentials: undefined,
    });
    expect(settings("s3://bucket.with.dots").isPathStyle).toBe(true);
    expect(settings("s3://bucket").prefix).toBe("");
  });

  test("Litestream's parameters, in both spellings", () => {
    const camel = "endpoint=https://s3.example.com&region=eu-x&forcePathStyle=false&skipVerify=true&signPayload=false";
    const hyphens = camel.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const more = "&partSize=10MiB&concurrency=9&storageClass=STANDARD_IA&requireContentMD5=false";
    for (const query of [camel + more, hyphens + more])
      expect(settings(`s3://bucket/x?${query}`)).toMatchObject({
        endpoint: new URL("https://s3.example.com"),
        region: "eu-x",
        isPathStyle: false,
        isCertificateChecked: false,
        isPayloadSigned: false,
        isContentMd5Sent: false,
        partSizeBytes: 10 * 1024 * 1024,
        concurrency: 9,
        createHeaders: { "x-amz-storage-class": "STANDARD_IA" },
      });
    expect(settings("s3://b/x?part-size=10MB").partSizeBytes).toBe(10_000_000);
  });

  test.each([
    ["minio:9000", "http://minio:9000/"],
    ["10.0.0.5:9000", "http://10.0.0.5:9000/"],
    ["storage.example.com", "https://storage.example.com/"],
    ["http://storage.example.com:8080/base", "http://storage.example.com:8080/base"],
  ])("the endpoint %s is %s, path style, us-east-1", (endpoint, url) => {
    expect(settings("s3://bucket/x", { endpoint })).toMatchObject({
      endpoint: new URL(url),
      isPathStyle: true,
      region: "us-east-1",
    });
  });

  test("a server in the host, as Litestream takes it", () => {
    expect(settings("s3://bucket.localhost:9000/x")).toMatchObject({
      bucket: "bucket",
      endpoint: new URL("http://localhost:9000"),
    });
  });

  test("providers: two at once for R2, consistent reads on Tigris", () => {
    expect(settings("s3://b/x", { endpoint: "https://a.r2.cloudflarestorage.com" })).toMatchObject({
      concurrency: 2,
      region: "auto",
    });
    expect(settings("s3://b/x", { endpoint: "https://fly.storage.tigris.dev" })).toMatchObject({
      extraHeaders: { "x-tigris-consistent": "true" },
      isContentMd5Sent: false,
    });
  });

  test("credentials: the configuration, then the URL, then Litestream's variables", () => {
    const env = { LITESTREAM_ACCESS_KEY_ID: "env", LITESTREAM_SECRET_ACCESS_KEY: "env-secret" };
    expect(settings("s3://b/x", {}, env).credentials).toEqual({ accessKeyId: "env", secretAccessKey: "env-secret" });
    expect(settings("s3://url:s%2Fcret@b/x", {}, env).credentials).toEqual({
      accessKeyId: "url",
      secretAccessKey: "s/cret",
    });
    const given = { accessKeyId: "id", secretAccessKey: "secret", sessionToken: "token" };
    expect(settings("s3://url:secret@b/x", given, env).credentials).toEqual(given);
  });

  test("encryption with a key that the customer keeps, or with one of KMS", () => {
    const sseCustomerKey = randomBytes(32).toString("base64");
    expect(settings("s3://b/x", { sseCustomerKey }).keyHeaders).toMatchObject({
      "x-amz-server-side-encryption-customer-algorithm": "AES256",
      "x-amz-server-side-encryption-customer-key": sseCustomerKey,
    });
    expect(settings("s3://b/x", { sseKmsKeyId: "arn:key" }).createHeaders).toEqual({
      "x-amz-server-side-encryption": "aws:kms",
      "x-amz-server-side-encryption-aws-kms-key-id": "arn:key",
    });
  });

  const key = randomBytes(32).toString("base64");
  test.each<[string, string, StoreSettings]>([
    ["SLU-3001", "s3:///path", {}],
    ["SLU-3003", "s3://b/x?endpoint=http://user:pass@host", {}],
    ["SLU-3003", "s3://b/x?force-path-style=maybe", {}],
    ["SLU-3003", "s3://b/x?concurrency=0", {}],
    ["SLU-3003", "s3://b/x?part-size=1MB", {}],
    ["SLU-3003", "s3://b/x?part-size=big", {}],
    ["SLU-3003", "s3://b/x", { accessKeyId: "only" }],
    ["SLU-3003", "s3://b/x", { sseCustomerKey: "short" }],
    ["SLU-3003", "s3://b/x", { sseCustomerKey: key, sseKmsKeyId: "both" }],
    ["SLU-3003", "s3://b/x", { sseCustomerKey: key, endpoint: "http://storage.example.com" }],
  ])("%s for %s %o, without a secret in it", (code, url, given) => {
    let error: unknown;
    try {
      settings(url, given);
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ code });
    expect((error as Error).message).not.toMatch(/pass@|short|only/);
  });
});

describe("opening a store", () => {
  test.each(["gs://b/x", "abs://c/x", "sftp://h/x", "webdav://h/x", "webdavs://h/x", "nats://h/b", "oss://b/x"])(
    "%s is known, and not part of this version",
    async (url) => {
      await expect(openStore(url)).rejects.toMatchObject({ code: "SLU-3002" });
    },
  );

  test.each(["", "bucket", "ftp://x", "file://data/app", "s3:bucket"])("%j is no store's URL", async (url) => {
    await expect(openStore(url)).rejects.toMatchObject({ code: "SLU-3001" });
  });

  test("a URL in a message has no password and no query", async () => {
    const error = await openStore("gs://user:secret@bucket/x?token=secret").catch((caught: unknown) => caught);
    expect((error as Error).message).not.toContain("secret");
    const store = await openStore("s3://user:secret@bucket/x?endpoint=http://127.0.0.1:1&token=secret");
    expect(store.url).toBe("s3://bucket/x");
    await store.close();
  });
});

describe("S3's replies", () => {
  const page = (contents: string, more = "") =>
    `<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>${more}${contents}</ListBucketResult>`;
  const object = (key: string) =>
    `<Contents><Key>${key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;x&quot;</ETag><Size>7</Size></Contents>`;

  test("a page with keys as URLs, and one with keys as they are", () => {
    const encoded = page(object("a%20b%2Bc%26+d"), "<EncodingType>url</EncodingType>");
    expect(parseListPage(encoded)).toEqual({
      objects: [{ key: "a b+c& d", sizeBytes: 7, modifiedMs: Date.UTC(2026, 0, 2, 3, 4, 5) }],
      next: undefined,
    });
    expect(parseListPage(page(object("a&amp;&#60;&#x3e;+%20")))).toMatchObject({ objects: [{ key: "a&<>+%20" }] });
  });

  test("a cut page says where it goes on, or is refused", () => {
    const cut = "<IsTruncated>true</IsTruncated>";
    expect(parseListPage(page("", `${cut}<NextContinuationToken>t/==</NextContinuationToken>`)).next).toBe("t/==");
    expect(() => parseListPage(page("", cut))).toThrow("doesn't say where");
  });

  test.each([
    "",
    "<html>Welcome to the hotel's network</html>",
    page("<Contents><Key>a</Key></Contents>"),
    page(object("a")).slice(0, -1),
  ])("what is no listing is refused, never an empty one: %j", (xml) => {
    expect(() => parseListPage(xml)).toThrow(/listing/);
  });

  test("an error, and no error", () => {
    expect(parseFault("<Error><Code>SlowDown</Code><Message>a &amp; b</Message></Error>")).toEqual({
      code: "SlowDown",
      message: "a & b",
    });
    expect(parseFault(page(object("a")))).toBeUndefined();
  });
});

test("what isn't escaped in a URL or a proxy's is an error without the password in it", async () => {
  const proxies = { HTTPS_PROXY: "http://me:hun/ter2@proxy:3128" };
  const problems = [
    await openStore("s3://AKIA:abc/hunter2@bucket/app?region=eu").catch((error: unknown) => error),
    await openStore("s3://AKIA:hunter2%zz@bucket/app?region=eu").catch((error: unknown) => error),
    await openStore("s3://bucket/app%zz").catch((error: unknown) => error),
    attempt(() => openS3(new URL("s3://bucket/app"), {}, proxies)),
  ];
  expect(problems.map((error) => (isSluiceError(error) ? error.code : String(error)))).toEqual([
    "SLU-3001",
    "SLU-3003",
    "SLU-3003",
    "SLU-3003",
  ]);
  expect(problems.map((error) => `${String(error)} ${(error as SluiceError).hint}`).join("\n")).not.toMatch(
    /hun\/?ter2/,
  );
});

function attempt(run: () => unknown): unknown {
  try {
    return run();
  } catch (error) {
    return error;
  }
}
