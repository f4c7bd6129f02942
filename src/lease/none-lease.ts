import { StaticLease } from "./static-lease.ts";

const SELF = "this node";

/** A lease of type `none`: this node is alone, and always the primary. Who else writes is found by the log's slots. */
export class NoneLease extends StaticLease {
  override readonly place = "this node alone";

  constructor() {
    super(SELF, SELF);
  }
}
