import fc from "fast-check";
import { expect } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { openStore } from "../../src/store/open.ts";
import { escapeXml, parseDeleteFaults, parseFault, parseListPage, text } from "../../src/store/s3-xml.ts";
import { fuzz, mutatedText } from "../fuzz/fuzz.ts";

const page = `<?xml version="1.0"?><ListBucketResult xmlns="x"><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<Contents><Key>a%20b/ltx/0/0000000000000001-0000000000000001.ltx</Key><Size>12</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>
<Contents><Key>c&amp;d&#x41;&#65;</Key><Size>0</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;x&quot;</ETag></Contents>
<NextContinuationToken>t</NextContinuationToken></ListBucketResult>`;
const fault = `<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>a &lt; b &#99999999; &#xd800;</Message></Error>`;
const deleted = `<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>`;

fuzz("a changed reply of S3's is read, or refused with a code", 500, () =>
  fc.asyncProperty(mutatedText(page, fault, deleted), async (xml) => {
    parseFault(xml);
    parseDeleteFaults(xml);
    text(xml, "ServerTime");
    try {
      for (const { key, sizeBytes, modifiedMs } of parseListPage(xml).objects) {
        expect(key).not.toBe("");
        expect(sizeBytes).toBeGreaterThanOrEqual(0);
        expect(modifiedMs).not.toBeNaN();
      }
    } catch (error) {
      if (!isSluiceError(error)) throw error;
      expect(error.code).toMatch(/^SLU-310[14]$/);
    }
  }),
);

fuzz("any key comes back out of the XML that it was put into", 300, () =>
  fc.asyncProperty(fc.string({ unit: "grapheme", maxLength: 40 }), async (key) => {
    expect(text(`<Key>${escapeXml(key)}</Key>`, "Key")).toBe(key);
  }),
);

fuzz("a changed URL of a store opens one, or is refused without its password", 300, () => {
  const urls = [
    "s3://AKIA:hunter2%2Fx@bucket/a/b?endpoint=https://h:9000&region=eu&part-size=10MiB&force-path-style=true&concurrency=3",
    "s3://bucket.minio:9000/a?sse-customer-key=aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ=",
    "file:///data/a%20b",
    "gs://u:hunter2@b/x",
  ];
  return fc.asyncProperty(mutatedText(...urls), async (url) => {
    let shown: string;
    try {
      const store = await openStore(url);
      shown = store.url;
      await store.close();
    } catch (error) {
      if (!isSluiceError(error)) throw error;
      expect(error.code).toMatch(/^SLU-300/);
      shown = error.message + error.hint;
    }
    // Of a changed URL it may have become the path.
    const isOnce = url.split("hunter2").length === 2;
    const isPassword = URL.canParse(url)
      ? new URL(url).password.includes("hunter2")
      : /^\w+:\/\/\w+:hunter2[^?#]*@/.test(url);
    if (isOnce && isPassword) expect(shown).not.toContain("hunter2");
  });
});
