// Which page this is.

import { overview } from "./overview.js";
import { run } from "./run.js";
import { sweep } from "./sweep.js";

const main = document.getElementById("main");
const [, kind, name] = location.pathname.split("/").map(decodeURIComponent);
if (kind === "sweep") sweep(main, name);
else if (kind === "run") run(main, name, new URLSearchParams(location.search).get("sweep"));
else overview(main);
