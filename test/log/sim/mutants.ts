import { readFileSync } from "node:fs";
import { HEADER_BYTES } from "../../../src/ltx/header.ts";
import type { Body, ObjectStore, PutOptions, PutOutcome } from "../../../src/store/store.ts";
import { listed } from "./history.ts";
import type { SimBucket } from "./store.ts";
import type { Variant } from "./world.ts";

type Put = (key: string, body: Body, options: PutOptions) => Promise<PutOutcome>;

const isRecord = (key: string): boolean => key.startsWith("ltx/0/");

/** The store with other conditional writes of records. */
function withPut(store: ObjectStore, put: (send: Put) => Put): ObjectStore {
  const send: Put = (key, body, options) => store.put(key, body, options);
  const changed = put(send);
  return {
    ...passThrough(store),
    put: (key, body, options = {}) => (isRecord(key) ? changed : send)(key, body, options),
  };
}

function passThrough(store: ObjectStore): ObjectStore {
  return {
    url: store.url,
    layout: store.layout,
    list: (prefix, options) => store.list(prefix, options),
    get: (key, options) => store.get(key, options),
    put: (key, body, options) => store.put(key, body, options),
    delete: (keys, options) => store.delete(keys, options),
    close: () => store.close(),
  };
}

async function untilDecided(send: () => Promise<PutOutcome>): Promise<void> {
  while ((await send()).outcome === "undecided");
}

function bytesOf(body: Body): Uint8Array {
  if (body instanceof Uint8Array) return body;
  if ("path" in body) return readFileSync(body.path);
  throw new Error("a record is no stream");
}

/** Each breaks one rule of the protocol's append and takeover; the simulation has to see the damage. */
export const mutants: Record<string, { readonly twins: boolean; readonly variant: Variant }> = {
  "a record is put without the condition": {
    twins: true,
    variant: { store: (store) => withPut(store, (send) => (key, body) => send(key, body, {})) },
  },
  "a record counts when it was sent": {
    twins: true,
    variant: {
      store: (store) =>
        withPut(store, (send) => async (key, body, options) => {
          const bytes = bytesOf(body);
          void untilDecided(() => send(key, bytes, options));
          return { outcome: "written", etag: "" };
        }),
    },
  },
  "412 is believed to be the own success": {
    twins: true,
    variant: {
      store: (store) =>
        withPut(store, (send) => async (key, body, options) => {
          const answer = await send(key, body, options);
          return answer.outcome === "refused" ? { outcome: "written", etag: "" } : answer;
        }),
    },
  },
  "412 is believed to be foreign": {
    twins: false,
    variant: {
      store: (store) => ({
        ...passThrough(store),
        get: (key, options) => store.get(isRecord(key) && options?.range === undefined ? "nothing" : key, options),
      }),
    },
  },
  "an undecided append is taken for lost and its slot for free": {
    twins: false,
    variant: {
      store: (store) =>
        withPut(store, (send) => async (key, body, options) => {
          const answer = await send(key, body, options);
          return answer.outcome === "undecided" ? { outcome: "refused" } : answer;
        }),
    },
  },
  "a retry carries more than the first try, and the writer alone decides": {
    twins: false,
    variant: {
      store: (store, _bucket, database) => {
        const tried = new Set<string>();
        return withPut(store, (send) => async (key, body, options) => {
          const grown = tried.has(key) ? database.regrow() : undefined;
          tried.add(key);
          const answer = await send(key, grown ?? body, options);
          if (answer.outcome !== "refused") return answer;
          const found = await store.get(key, { range: { offset: 0, length: HEADER_BYTES } }).catch(() => undefined);
          const chunks: Uint8Array[] = [];
          for await (const chunk of found?.body ?? []) chunks.push(chunk);
          const isMine = Buffer.concat(chunks).subarray(64, 72).equals(bytesOf(body).subarray(64, 72));
          return isMine ? { outcome: "written", etag: "" } : answer;
        });
      },
    },
  },
  "the next slot is sent before this one is decided": {
    twins: false,
    variant: {
      store: (store) =>
        withPut(store, (send) => async (key, body, options) => {
          const bytes = bytesOf(body);
          const answer = await send(key, bytes, options);
          if (answer.outcome !== "undecided") return answer;
          void untilDecided(() => send(key, bytes, options));
          return { outcome: "written", etag: "" };
        }),
    },
  },
  "retention deletes takeover records": {
    twins: true,
    variant: {
      withoutFences: true,
      store: (store, bucket) => ({
        ...passThrough(store),
        delete: (keys, options) => store.delete([...keys, ...coveredRecords(bucket)], options),
      }),
    },
  },
  "retention deletes what nothing covers": {
    twins: false,
    variant: {
      store: (store, bucket) => ({
        ...passThrough(store),
        delete: (keys, options) => store.delete([...keys, ...uncovered(bucket)], options),
      }),
    },
  },
};

function coveredRecords(bucket: SimBucket): string[] {
  const files = listed(bucket);
  const head = Math.max(...files.map((file) => file.maxTxid));
  return files
    .filter((file) => file.level === 0 && file.maxTxid < head)
    .filter(({ minTxid, maxTxid }) =>
      files.some((other) => other.level > 0 && other.minTxid <= minTxid && other.maxTxid >= maxTxid),
    )
    .map((file) => file.key);
}

/** Compacted files that alone cover their first slot. */
function uncovered(bucket: SimBucket): string[] {
  const files = listed(bucket);
  return files
    .filter((file) => file.level > 0)
    .filter(
      ({ key, minTxid }) =>
        !files.some((other) => other.key !== key && other.minTxid <= minTxid && other.maxTxid >= minTxid),
    )
    .slice(0, 1)
    .map((file) => file.key);
}
