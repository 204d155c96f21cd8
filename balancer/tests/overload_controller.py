#!/usr/bin/env python3
"""A small overload controller.

Asks a load balancer every few seconds how many requests wait at its nodes, takes nodes with too
many of them out of rotation and puts them back when they have caught up. A number of nodes stays
in rotation whatever happens.

Settings, from the environment:

  BALANCER_API            base URL of the balancer's API, http://127.0.0.1:5000
  BALANCER_API_TOKEN      bearer token for it, if it wants one
  MIN_NUMBER_OF_SERVERS   nodes that must stay in rotation, 2
  MAX_ACCEPTABLE_LOAD     share of a node's capacity that may be in use, 0.75
  NODE_CAPACITY           requests a node can hold, 500
  UPDATE_INTERVAL         seconds between two looks, 10
  LOG_LEVEL               DEBUG, INFO, WARNING, ERROR or CRITICAL; INFO
"""

import http.client
import json
import logging
import os
import signal
import sys
import threading
import urllib.parse
import urllib.request
from typing import List, NamedTuple, Optional

HTTP_TIMEOUT = 5

log = logging.getLogger("overload-controller")


class ApiError(Exception):
    """The balancer could not be asked, or its answer makes no sense."""


class Node(NamedTuple):
    name: str
    enabled: bool
    queued_requests: int


class LoadBalancer:
    def __init__(self, base_url: str, token: Optional[str] = None) -> None:
        self.base_url = base_url.rstrip("/") + "/loadbalancer"
        self.headers = {"Accept": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def list_nodes(self) -> List[str]:
        return self._call("GET", "/node_list")["nodes"]

    def get_node(self, name: str) -> Node:
        return self._node(self._call("GET", self._path(name)))

    def enable(self, name: str) -> Node:
        return self._node(self._call("POST", self._path(name) + "/enable"))

    def disable(self, name: str) -> Node:
        return self._node(self._call("POST", self._path(name) + "/disable"))

    @staticmethod
    def _path(name: str) -> str:
        return "/node/" + urllib.parse.quote(name, safe="")

    @staticmethod
    def _node(answer: dict) -> Node:
        return Node(answer["node"], answer["enabled"], answer["queued_requests"])

    def _call(self, method: str, path: str) -> dict:
        request = urllib.request.Request(self.base_url + path, method=method, headers=self.headers)
        try:
            with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT) as response:
                return json.load(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(f"{method} {path}: {error}") from error


class Controller:
    def __init__(self, balancer: LoadBalancer, minimum: int, threshold: float) -> None:
        self.balancer = balancer
        self.minimum = minimum
        self.threshold = threshold

    def update(self) -> None:
        nodes = [self.balancer.get_node(name) for name in self.balancer.list_nodes()]
        in_rotation = sum(node.enabled for node in nodes)

        for node in nodes:
            if not node.enabled and node.queued_requests <= self.threshold:
                log.info("Enabling node %s, queued requests: %d", node.name, node.queued_requests)
                self.balancer.enable(node.name)
                in_rotation += 1

        for node in sorted(nodes, key=lambda node: node.queued_requests, reverse=True):
            if not node.enabled or node.queued_requests <= self.threshold:
                continue
            if in_rotation <= self.minimum:
                log.debug("Node %s is overloaded, but cannot be spared", node.name)
                break
            log.info("Disabling node %s, queued requests: %d", node.name, node.queued_requests)
            self.balancer.disable(node.name)
            in_rotation -= 1

        log.debug("Updated %d nodes, %d of them in rotation", len(nodes), in_rotation)


def main() -> int:
    env = os.environ
    logging.basicConfig(
        level=env.get("LOG_LEVEL", "INFO").upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    balancer = LoadBalancer(
        env.get("BALANCER_API", "http://127.0.0.1:5000"), env.get("BALANCER_API_TOKEN")
    )
    capacity = int(env.get("NODE_CAPACITY", "500"))
    controller = Controller(
        balancer,
        minimum=int(env.get("MIN_NUMBER_OF_SERVERS", "2")),
        threshold=float(env.get("MAX_ACCEPTABLE_LOAD", "0.75")) * capacity,
    )
    interval = float(env.get("UPDATE_INTERVAL", "10"))

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while True:
        try:
            controller.update()
        except (ApiError, KeyError, TypeError) as error:
            log.error("Update failed: %r", error)
        if stop.wait(interval):
            return 0


if __name__ == "__main__":
    sys.exit(main())
