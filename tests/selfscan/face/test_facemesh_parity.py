"""The torch mesh against MediaPipe's own runtime and the reference interpreter."""

from pathlib import Path

import cv2
import numpy as np
import torch
from drawn_face import draw_face, percent_of_eye_distance, to_unit

from selfscan.face.facemesh import INPUT_SIZE, _sample, crop_landmarks, load_facemesh, model_path
from selfscan.face.facemesh_blocks import Block, find_blocks
from selfscan.face.tflite_graph import read_graph


def real_faces(shared: Path, count: int, size: int | None = None) -> list[np.ndarray]:
    paths = sorted((shared / "faces256").glob("*.jpg"))
    images = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in paths[:: max(1, len(paths) // count)]]
    return [i if size is None else cv2.resize(i, (size, size), interpolation=cv2.INTER_AREA) for i in images[:count]]


def mediapipe_graph(config: str, outputs: dict, side: dict, images, rects=None) -> list[dict]:
    """Run a MediaPipe graph on images; per image the decoded output streams that fired."""
    import mediapipe as mp
    from mediapipe.python import packet_creator
    from mediapipe.python._framework_bindings import resource_util

    resource_util.set_resource_dir(str(Path(mp.__file__).parents[1]))
    graph = mp.CalculatorGraph(graph_config=config)
    results = [{} for _ in images]
    for stream, decode in outputs.items():
        graph.observe_output_stream(
            stream, lambda name, packet, d=decode: results[packet.timestamp.value].__setitem__(name, d(packet))
        )
    graph.start_run(side)
    for i, image in enumerate(images):
        frame = packet_creator.create_image_frame(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        graph.add_packet_to_input_stream("image", frame.at(i))
        if rects is not None:
            graph.add_packet_to_input_stream("roi", packet_creator.create_proto(rects[i]).at(i))
    graph.wait_until_idle()
    graph.close()
    return results


def as_array(landmarks) -> np.ndarray:
    return np.array([[p.x, p.y, p.z] for p in landmarks.landmark])


def mediapipe_mesh(images) -> list[np.ndarray | None]:
    """MediaPipe's own attention mesh on whole 192 px images, without detection: [478, 3] px each."""
    from mediapipe.framework.formats import rect_pb2
    from mediapipe.python import packet_creator, packet_getter

    config = """
        input_stream: "image" input_stream: "roi" input_side_packet: "attention" output_stream: "landmarks"
        node { calculator: "FaceLandmarkCpu" input_stream: "IMAGE:image" input_stream: "ROI:roi"
               input_side_packet: "WITH_ATTENTION:attention" output_stream: "LANDMARKS:landmarks" }"""
    whole = rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1, height=1)
    decode = {"landmarks": lambda packet: as_array(packet_getter.get_proto(packet)) * INPUT_SIZE}
    side = {"attention": packet_creator.create_bool(True)}
    found = mediapipe_graph(config, decode, side, images, [whole] * len(images))
    return [f.get("landmarks") for f in found]


def assert_same_as_mediapipe(images, at_least: int) -> None:
    expected = mediapipe_mesh(images)
    with torch.no_grad():
        landmarks, presence = load_facemesh()(to_unit(images))
    accepted = [e is not None for e in expected]
    assert sum(accepted) >= at_least
    assert [bool(p > 0.5) for p in presence] == accepted
    for got, want in zip(landmarks.numpy(), expected):
        if want is not None:
            np.testing.assert_allclose(got, want, atol=1e-3)


def test_drawn_faces_give_mediapipes_own_points():
    images = [draw_face()]
    images += [draw_face(degrees=d, shift=(s, -s), scale=1 + s) for d, s in ((12, 0.05), (-25, -0.08), (40, 0.1))]
    images += [draw_face(scale=1.3, shift=(0.22, 0.0))]  # an eye's crop reaches beyond the map
    images += [draw_face(scale=1.9), draw_face(shift=(-0.2, -0.15)), draw_face(shift=(0.3, 0.1))]
    assert_same_as_mediapipe(images, at_least=7)


def test_real_faces_give_mediapipes_own_points(shared):
    faces = real_faces(shared, 12, INPUT_SIZE)
    faces += [np.roll(f, 50, axis=1) for f in faces[:3]] + [np.rot90(f).copy() for f in faces[3:5]]
    assert_same_as_mediapipe(faces, at_least=12)


def litert_subgraph(inputs: list[int] | None, outputs: list[int]):
    """The reference interpreter on the part of the network between tensors, without the custom operators."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model_path().read_bytes(), 0))
    graph = model.subgraphs[0]
    custom = {i for i, code in enumerate(model.operatorCodes) if code.customCode}
    known = set(graph.inputs if inputs is None else inputs)
    known |= {i for i, t in enumerate(graph.tensors) if model.buffers[t.buffer].data is not None}
    kept = []
    for operator in graph.operators:
        if operator.opcodeIndex not in custom and known.issuperset(operator.inputs):
            kept.append(operator)
            known.update(operator.outputs)
    graph.operators = kept
    graph.inputs = list(graph.inputs) if inputs is None else inputs
    graph.outputs = outputs
    model.signatureDefs = None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()

    def run(*values):
        for detail, value in zip(interpreter.get_input_details(), values):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]

    return run


def test_trunk_equals_the_reference_interpreter_on_noise():
    graph = read_graph(model_path())
    blocks = find_blocks(graph)
    wide = [b.source for b in blocks.values() if b.stride == 2 and b.source != graph.inputs[0]]
    ends = [graph.outputs["output_mesh_identity"], graph.outputs["conv_faceflag"]]
    run = litert_subgraph(None, [*ends, *wide[:3]])
    net = load_facemesh()
    for seed in range(3):
        x = torch.rand(1, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(seed))
        want = [torch.from_numpy(o) for o in run(np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()))]
        landmarks, presence = net(x)
        unrefined = sorted(set(range(468)) - set(net.subsets.flatten().tolist()))
        points = want[0].reshape(468, 3)
        torch.testing.assert_close(landmarks[0, unrefined], points[unrefined], atol=1e-3, rtol=0)
        torch.testing.assert_close(landmarks[0, :468, 2], points[:, 2], atol=1e-3, rtol=0)
        torch.testing.assert_close(presence, torch.sigmoid(want[1].flatten()), atol=1e-5, rtol=0)
        for got, reference in zip(net.features(x), want[2:]):
            torch.testing.assert_close(got, reference.permute(0, 3, 1, 2), atol=1e-3, rtol=1e-4)


def test_refining_branches_equal_the_reference_interpreter_on_noise():
    graph = read_graph(model_path())
    crops = [o.outputs[0] for o in graph.of_kind("TransformTensorBilinear")]
    raw = []
    for name in ("lips", "left_eye", "left_iris", "right_eye", "right_iris"):
        transform = graph.producer(graph.producer(graph.outputs[f"output_{name}"]).inputs[0])
        raw.append(transform.inputs[0])
    net = load_facemesh()
    x = [torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    want = litert_subgraph(crops, raw)(*[np.ascontiguousarray(c.permute(0, 2, 3, 1).numpy()) for c in x])
    y = torch.cat(x, dim=1)
    for block in net.regions:
        y = block(y)
    lips, left, right = y.chunk(3, dim=1)
    y = torch.cat([lips, left, left, right, right], dim=1)
    for block in net.heads:
        y = block(y)
    y = torch.nn.functional.conv2d(y, net.points_weight, net.points_bias, groups=5).reshape(5, -1, 2)
    for got, reference in zip(y, want):
        reference = torch.from_numpy(reference).reshape(-1, 2)
        torch.testing.assert_close(got[: len(reference)], reference, atol=1e-3, rtol=1e-4)
        assert not got[len(reference) :].any()


def test_sample_is_bilinear_at_half_pixel_centres_and_zero_outside():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 4, 9, 9, generator=generator, dtype=torch.float64)
    linear = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    shift = torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) * 9
    got = _sample(features, linear, shift, 5).reshape(2, 3, 4, 5, 5)
    outside = 0
    for n, r, y, x in np.ndindex(2, 3, 5, 5):
        u, v = (linear[n, r] @ torch.tensor([x + 0.5, y + 0.5], dtype=torch.float64) + shift[n, r] - 0.5).tolist()
        want = torch.zeros(4, dtype=torch.float64)
        if 0 <= u <= 8 and 0 <= v <= 8:
            i, j = min(int(v), 7), min(int(u), 7)
            a, b = v - i, u - j
            top = features[n, :, i, j] * (1 - b) + features[n, :, i, j + 1] * b
            want = top * (1 - a) + (features[n, :, i + 1, j] * (1 - b) + features[n, :, i + 1, j + 1] * b) * a
        else:
            outside += 1
        torch.testing.assert_close(got[n, r, :, y, x], want)
    assert 10 < outside < 140


def test_whole_pipeline_agrees_with_mediapipe_in_its_own_region(shared):
    from mediapipe.python import packet_creator, packet_getter

    config = """
        input_stream: "image" input_side_packet: "attention" input_side_packet: "faces" input_side_packet: "previous"
        output_stream: "landmarks" output_stream: "rois"
        node { calculator: "FaceLandmarkFrontCpu" input_stream: "IMAGE:image"
               input_side_packet: "WITH_ATTENTION:attention" input_side_packet: "NUM_FACES:faces"
               input_side_packet: "USE_PREV_LANDMARKS:previous"
               output_stream: "LANDMARKS:landmarks" output_stream: "ROIS_FROM_DETECTIONS:rois" }"""
    side = {
        "attention": packet_creator.create_bool(True),
        "faces": packet_creator.create_int(1),
        "previous": packet_creator.create_bool(False),
    }
    decode = {
        "landmarks": lambda packet: as_array(packet_getter.get_proto_list(packet)[0]),
        "rois": lambda packet: packet_getter.get_proto_list(packet)[0],
    }
    images = [draw_face(480, scale=0.5, degrees=15), *real_faces(shared, 8)]
    for image, found in zip(images, mediapipe_graph(config, decode, side, images)):
        roi, want, size = found["rois"], found["landmarks"][:, :2], len(image)
        cos, sin = np.cos(roi.rotation), np.sin(roi.rotation)
        linear = np.array([[cos, -sin], [sin, cos]]) * roi.width * size / INPUT_SIZE
        shift = np.array([roi.x_center, roi.y_center]) * size - linear @ [INPUT_SIZE / 2, INPUT_SIZE / 2]
        region = cv2.warpAffine(
            image,
            np.hstack([linear, shift[:, None]]),
            (INPUT_SIZE, INPUT_SIZE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        with torch.no_grad():
            landmarks, _ = load_facemesh()(to_unit([region]))
        got = (landmarks[0, :, :2].double().numpy() @ linear.T + shift) / size
        assert percent_of_eye_distance(got, want).max() < 0.2


def test_fixed_region_agrees_with_mediapipe_on_aligned_faces(shared):
    import mediapipe as mp

    images = real_faces(shared, 24)
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as reference:
        found = [reference.process(i).multi_face_landmarks for i in images]
    kept = [i for i, f in enumerate(found) if f]
    assert len(kept) >= 22
    want = np.stack([as_array(found[i][0]) for i in kept])
    with torch.no_grad():
        got, presence = crop_landmarks(load_facemesh(), to_unit([images[i] for i in kept]) * 2 - 1)
    error = percent_of_eye_distance(got.numpy(), want)
    # MediaPipe's own answer moves by a median of 1.2 % when its region comes from the last frame, not the detector
    assert np.median(error) < 1.8
    assert np.median(error[:, [61, 291, 13, 14]]) < 1.2
    assert np.median(error[:, 468:]) < 1.0
    assert np.corrcoef(got[..., 2].flatten(), want[..., 2].flatten())[0, 1] > 0.99
    assert presence.min() > 0.9


def test_blocks_of_the_plain_mesh_equal_torch_layers_written_out():
    graph = read_graph(model_path())
    weights = next(b for b in find_blocks(graph).values() if b.depthwise is not None and b.stride == 2 and b.shortcut)
    x = torch.randn(1, weights.depthwise.shape[0], 10, 10, generator=torch.Generator().manual_seed(0))
    f = torch.nn.functional
    y = f.conv2d(f.pad(x, (0, 1, 0, 1)), weights.depthwise, weights.depthwise_bias, 2, groups=x.shape[1])
    y = f.conv2d(y, weights.weight, weights.bias)
    y[:, : x.shape[1]] += f.max_pool2d(x, 2)
    torch.testing.assert_close(Block(weights)(x), f.prelu(y, weights.slope), atol=1e-5, rtol=1e-5)
