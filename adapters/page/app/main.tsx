import { render } from "preact"
import "uplot/dist/uPlot.min.css"
import "./base.css"
import "./list.css"
import "./details.css"
import "./layout.css"
import { App } from "./App.tsx"
import { stayConnected } from "./connection.ts"
import { followHash } from "./view.ts"

const page = document.getElementById("page")
if (page === null) throw new Error("the document has no #page")
followHash()
stayConnected()
render(<App />, page)
