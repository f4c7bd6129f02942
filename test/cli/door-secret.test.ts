import { createHmac } from "node:crypto";
import { expect, test } from "vitest";
import type { ClusterConfig } from "../../src/config/config.ts";
import { doorSecret } from "../../src/cli/door-secret.ts";
import { bootId } from "../../src/database/boot.ts";
import { HopSigner } from "../../src/proxy/hop.ts";

const cluster = {} as ClusterConfig;
const hop = { from: "x", client: "127.0.0.1", proto: "https", mode: "read", expects: false, host: "h" } as const;

test("front doors of a cluster without a secret understand each other, and who has only read the source doesn't", () => {
  const door = new HopSigner(doorSecret({ secret: undefined, cluster }));
  const other = new HopSigner(doorSecret({ secret: undefined, cluster }));
  expect(door.verify(other.sign(hop, "POST", "/pay"), "POST", "/pay")).toEqual(hop);
  for (const known of ["a cluster on one machine", "sluice on one machine", ""]) {
    expect(door.verify(new HopSigner(known).sign(hop, "POST", "/pay"), "POST", "/pay")).toBeUndefined();
  }
  expect(doorSecret({ secret: undefined, cluster })).toBe(
    createHmac("sha256", bootId()).update("sluice on one machine").digest("hex"),
  );
});

test("the cluster's secret, where there is one; a lone node's is nobody else's", () => {
  expect(doorSecret({ secret: "s", cluster })).toBe("s");
  const lone = { secret: undefined, cluster: undefined };
  expect(doorSecret(lone)).not.toBe(doorSecret(lone));
});
