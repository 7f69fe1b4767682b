// Every channel with its decision, and whether that is enforced.

import { el, panel } from "../dom.js";
import { live } from "../live.js";
import { keyOf } from "../model.js";
import { DataTable } from "../table.js";
import { CHANNEL_COLUMNS, ENFORCED_CHOICE, VERDICT_CHOICE, liveTable } from "./common.js";

export default {
  title: "Channels",
  open(root, { query }) {
    const place = el("div");
    root.append(panel("Channels", { flush: true, note: "each is between a frontend and its backend" }, place));
    const table = new DataTable({
      name: "channels", columns: CHANNEL_COLUMNS, keyOf, filter: query.get("filter") ?? "",
      none: ["There are no channels that your role shows you", "They appear as soon as a domain has a device."],
      choices: [VERDICT_CHOICE, ENFORCED_CHOICE], chosen: Object.fromEntries(query),
    });
    table.marks = true;
    return liveTable(place, table, "channel.list", () => live.channels && [...live.channels.values()]);
  },
};
