"""Classes of the data sets that everyone measures on, and the labels in their files that stand for each."""

from __future__ import annotations

IGNORE = 255


def _names(text: str) -> tuple[str, ...]:
    """Names with a semicolon between them."""
    return tuple(" ".join(name.split()) for name in text.split(";"))


CITYSCAPES = _names(
    "road; sidewalk; building; wall; fence; pole; traffic light; traffic sign; vegetation; terrain; sky; person; rider;"
    "car; truck; bus; train; motorcycle; bicycle"
)
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_MAP = dict.fromkeys(range(34), IGNORE) | {label: train for train, label in enumerate(_CITYSCAPES_IDS)}
"""labelIds -> train ids."""

VOC = _names(
    "background; aeroplane; bicycle; bird; boat; bottle; bus; car; cat; chair; cow; dining_table; dog; horse;"
    "motorbike; person; potted_plant; sheep; sofa; train; tv_monitor"
)

PET = ("background", "pet")
PET_MAP = {1: 1, 2: 0, 3: IGNORE}
"""Of the trimaps: foreground, background, and the outline, which is not classified."""

CAMVID = _names("sky; building; pole; road; pavement; tree; sign_symbol; fence; car; pedestrian; bicyclist")
CAMVID_IGNORE = 11
_CAMVID_COLOURS = """
sky: Sky 128 128 128
building: Archway 192 0 128, Bridge 0 128 64, Building 128 0 0, Tunnel 64 0 64, Wall 64 192 0
pole: Column_Pole 192 192 128, TrafficCone 0 0 64
road: Road 128 64 128, LaneMkgsDriv 128 0 192, LaneMkgsNonDriv 192 0 64
pavement: Sidewalk 0 0 192, ParkingBlock 64 192 128, RoadShoulder 128 128 192
tree: Tree 128 128 0, VegetationMisc 192 192 0
sign_symbol: SignSymbol 192 128 128, Misc_Text 128 128 64, TrafficLight 0 64 64
fence: Fence 64 64 128
car: Car 64 0 128, SUVPickupTruck 64 128 192, Truck_Bus 192 128 192, Train 192 64 128, OtherMoving 128 64 64
pedestrian: Pedestrian 64 64 0, Child 192 128 64, CartLuggagePram 64 0 192, Animal 64 128 64
bicyclist: Bicyclist 0 128 192, MotorcycleScooter 192 0 192
ignored: Void 0 0 0
"""


def camvid_colours() -> tuple[dict[str | int, tuple[int, int, int]], dict[int, int]]:
    """Of the colour-coded original: number of each of its 32 classes -> colour, and -> one of SegNet's eleven."""
    colours: dict[str | int, tuple[int, int, int]] = {}
    groups: dict[int, int] = {}
    for group, line in enumerate(_CAMVID_COLOURS.strip().splitlines()):
        for member in line.partition(":")[2].split(","):
            red, green, blue = (int(part) for part in member.split()[1:])
            groups[len(colours)] = group
            colours[len(colours)] = red, green, blue
    return colours, groups


ADE20K = _names(
    "wall; building; sky; floor; tree; ceiling; road; bed; windowpane; grass; cabinet; sidewalk; person; earth;"
    "door; table; mountain; plant; curtain; chair; car; water; painting; sofa; shelf; house; sea; mirror; rug;"
    "field; armchair; seat; fence; desk; rock; wardrobe; lamp; bathtub; railing; cushion; base; box; column;"
    "signboard; chest of drawers; counter; sand; sink; skyscraper; fireplace; refrigerator; grandstand; path;"
    "stairs; runway; case; pool table; pillow; screen door; stairway; river; bridge; bookcase; blind;"
    "coffee table; toilet; flower; book; hill; bench; countertop; stove; palm; kitchen island; computer;"
    "swivel chair; boat; bar; arcade machine; hovel; bus; towel; light; truck; tower; chandelier; awning;"
    "streetlight; booth; television receiver; airplane; dirt track; apparel; pole; land; bannister; escalator;"
    "ottoman; bottle; buffet; poster; stage; van; ship; fountain; conveyer belt; canopy; washer; plaything;"
    "swimming pool; stool; barrel; basket; waterfall; tent; bag; minibike; cradle; oven; ball; food; step; tank;"
    "trade name; microwave; pot; animal; bicycle; lake; dishwasher; screen; blanket; sculpture; hood; sconce;"
    "vase; traffic light; tray; ashcan; fan; pier; crt screen; plate; monitor; bulletin board; shower; radiator;"
    "glass; clock; flag"
)
ADE20K_MAP = {0: IGNORE} | {label: label - 1 for label in range(1, 151)}

_COCO_THINGS = _names(
    "person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light; fire hydrant; stop sign;"
    "parking meter; bench; bird; cat; dog; horse; sheep; cow; elephant; bear; zebra; giraffe; backpack; umbrella;"
    "handbag; tie; suitcase; frisbee; skis; snowboard; sports ball; kite; baseball bat; baseball glove; skateboard;"
    "surfboard; tennis racket; bottle; wine glass; cup; fork; knife; spoon; bowl; banana; apple; sandwich; orange;"
    "broccoli; carrot; hot dog; pizza; donut; cake; chair; couch; potted plant; bed; dining table; toilet; tv; laptop;"
    "mouse; remote; keyboard; cell phone; microwave; oven; toaster; sink; refrigerator; book; clock; vase; scissors;"
    "teddy bear; hair drier; toothbrush"
)
_COCO_STUFF_ONLY = _names(
    "banner; blanket; branch; bridge; building-other; bush; cabinet; cage; cardboard; carpet; ceiling-other;"
    "ceiling-tile; cloth; clothes; clouds; counter; cupboard; curtain; desk-stuff; dirt; door-stuff; fence;"
    "floor-marble; floor-other; floor-stone; floor-tile; floor-wood; flower; fog; food-other; fruit; furniture-other;"
    "grass; gravel; ground-other; hill; house; leaves; light; mat; metal; mirror-stuff; moss; mountain; mud; napkin;"
    "net; paper; pavement; pillow; plant-other; plastic; platform; playingfield; railing; railroad; river; road; rock;"
    "roof; rug; salad; sand; sea; shelf; sky-other; skyscraper; snow; solid-other; stairs; stone; straw;"
    "structural-other; table; tent; textile-other; towel; tree; vegetable; wall-brick; wall-concrete; wall-other;"
    "wall-panel; wall-stone; wall-tile; wall-wood; water-other; waterdrops; window-blind; window-other; wood"
)
COCO_STUFF = _COCO_THINGS + _COCO_STUFF_ONLY
"""80 things, then 91 stuffs."""
_COCO_NEVER_USED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_COCO_LABELS = [label for label in range(182) if label not in _COCO_NEVER_USED]
COCO_STUFF_MAP = dict.fromkeys(_COCO_NEVER_USED, IGNORE) | {label: train for train, label in enumerate(_COCO_LABELS)}
"""Of the stuffthingmaps, whose labels are COCO's ids less one."""

COCO_PIXELMAPS = (*_COCO_STUFF_ONLY, "other")
COCO_PIXELMAPS_MAP = {0: IGNORE} | {label: label - 92 for label in range(92, 184)}
"""Of the pixel maps of COCO's stuff task: stuffs 92..182, 183 for every thing."""

STANDARD_MAPS = (CITYSCAPES_MAP, PET_MAP, camvid_colours()[1], ADE20K_MAP, COCO_STUFF_MAP, COCO_PIXELMAPS_MAP)
