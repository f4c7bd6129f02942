import type { LeasePlace } from "../config/config.ts";
import { openStore } from "../store/open.ts";
import type { LeaseRegister } from "./lease.ts";

/**
 * The lease where the configuration says that it lies, with records that are signed where there is a secret. Throws as
 * `openRegister` does.
 */
export async function openLease(
  place: LeasePlace | undefined,
  options: { readonly ttlMs: number; readonly advertise: string | undefined; readonly secret: string | undefined },
): Promise<LeaseRegister> {
  const register = await openRegister(place, options.ttlMs, options.advertise);
  // What the configuration says needs no signature.
  if (options.secret === undefined || !register.expires) return register;
  const { SignedRegister } = await import("./signed-register.ts");
  return new SignedRegister(register, options.secret);
}

/**
 * Where the configuration says that the lease lies; `undefined` is a lone node's. `advertise`: this node's address, by
 * which a lease of type `static` knows it. Loads only the code of that type. Nothing is sent yet; throws SLU-8006 for
 * settings that don't fit, and what `openStore` throws.
 */
async function openRegister(
  place: LeasePlace | undefined,
  ttlMs: number,
  advertise: string | undefined,
): Promise<LeaseRegister> {
  switch (place?.type) {
    case "store": {
      const { StoreLease } = await import("./store-lease.ts");
      return new StoreLease(await openStore(place.store.url, place.store.settings));
    }
    case "file": {
      const { FileLease } = await import("./file-lease.ts");
      return new FileLease(place.path);
    }
    case "static": {
      const { StaticLease } = await import("./static-lease.ts");
      return new StaticLease(place.primary, advertise);
    }
    case "consul": {
      const { ConsulLease } = await import("./consul-lease.ts");
      return new ConsulLease(place, ttlMs);
    }
    case "etcd": {
      const { EtcdLease } = await import("./etcd-lease.ts");
      const { urls, key, username, password, tls } = place;
      return new EtcdLease({ urls, key, user: username, password, tls }, ttlMs);
    }
    default: {
      const { NoneLease } = await import("./none-lease.ts");
      return new NoneLease();
    }
  }
}
