import { request } from "node:http";
import { text } from "node:stream/consumers";
import type { ErrorCode } from "../errors/codes.ts";
import { SluiceError } from "../errors/error.ts";
import { readOwner } from "./owner.ts";

/**
 * Asks the process that looks after `db`, over its control socket. Throws SLU-1004 when there's none, and the
 * process's own errors.
 */
export async function ask<T>(db: string, method: "GET" | "POST", path: string, body?: unknown): Promise<T> {
  const owner = readOwner(db);
  if (owner === undefined) throw new SluiceError("SLU-1004", `nobody looks after ${db} on this machine`);
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const call = request(
    { socketPath: owner.socket, path, method, headers: { "content-type": "application/json" } },
    (response) => {
      text(response)
        .then((answer) => {
          const parsed = JSON.parse(answer) as T & { code?: ErrorCode; error?: string; hint?: string };
          if (response.statusCode === 200) return resolve(parsed);
          const { code = "SLU-1000", error = answer, hint } = parsed;
          throw new SluiceError(code, error, hint === undefined ? {} : { hint });
        })
        .catch(reject);
    },
  );
  call.on("error", (cause) => {
    reject(new SluiceError("SLU-1004", `process ${owner.pid}, which looks after ${db}, doesn't answer`, { cause }));
  });
  call.end(body === undefined ? undefined : JSON.stringify(body));
  return promise;
}
