import { randomBytes } from "node:crypto";
import { SluiceError } from "../../errors/error.ts";
import type { NodeFields } from "./messages.ts";

/** This node as the others see it. */
export interface NodeIdentity {
  /** Id that all nodes of the cluster share; empty when this one has not learned it. */
  readonly clusterId: string;
  /** Kept on disk: it tells that a directory was copied. */
  readonly nodeId: string;
  /** Random, of this process. */
  readonly life: bigint;
  readonly name: string;
  /** URL under which the other nodes reach this one; empty when they can't. */
  readonly advertise: string;
  readonly version: string;
}

/** A random number for `NodeIdentity.life`. */
export function newLife(): bigint {
  return randomBytes(8).readBigUInt64LE();
}

export function fieldsOf(identity: NodeIdentity): NodeFields {
  const { clusterId, nodeId, life, name, advertise, version } = identity;
  return { cluster: clusterId, id: nodeId, life, name, advertise, version };
}

/** Throws SLU-8202 for a node of another cluster, and SLU-8204 for one with this node's id. */
export function assertKin(own: NodeIdentity, other: NodeFields): void {
  if (own.clusterId !== "" && other.cluster !== "" && own.clusterId !== other.cluster) {
    throw new SluiceError("SLU-8202", `${other.name} is in cluster ${other.cluster}, this node in ${own.clusterId}`);
  }
  if (own.nodeId !== other.id) return;
  const what = own.life === other.life ? "this very process" : "another process with this node's id";
  throw new SluiceError("SLU-8204", `${other.name} (${other.advertise}) is ${what}`);
}

/** The version to speak: the highest in both ranges. Throws SLU-8203. */
export function agree(
  own: { readonly min: number; readonly max: number },
  other: { readonly min: number; readonly max: number },
): number {
  const version = Math.min(own.max, other.max);
  if (version >= own.min && version >= other.min) return version;
  throw new SluiceError(
    "SLU-8203",
    `this node speaks versions ${own.min} to ${own.max}, the other ${other.min} to ${other.max}`,
  );
}
