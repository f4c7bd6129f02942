/**
 * A process that wants the lease in a file or a directory store, for tests that stop and kill it: `child.ts file|store
 * PATH TTL_MS ID`. Prints "acquired GENERATION" and then, each few ms, whether `isHeld` says something new.
 */
import { FileLease } from "../../src/lease/file-lease.ts";
import { LeaseKeeper } from "../../src/lease/keeper.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";

const [kind, place = "", ttl, id = ""] = process.argv.slice(2);
const register = kind === "file" ? new FileLease(place) : new StoreLease(new DirectoryStore(place));
const keeper = new LeaseKeeper({
  register,
  node: { id, name: id, advertise: "" },
  ttlMs: Number(ttl),
  events: { lost: (reason) => console.log(`lost ${reason}`) },
});
keeper.start();
const grant = await keeper.acquire();
console.log(`acquired ${grant?.generation}`);
let before = true;
setInterval(() => {
  const isHeld = keeper.isHeld();
  if (isHeld !== before) console.log(`held ${isHeld}`);
  before = isHeld;
}, 5);
